"""Realistic load on a running Millrace: many who post, some who send batches, some who watch.

    locust --headless --locustfile loadtest/locustfile.py --host URL --users N --run-time SPAN
        [--burst SECONDS] [--max-failure-ratio RATIO] [--p99-below-ms MILLISECONDS]
        [--summary-json FILE] [PostingClient] [BatchClient] [Dashboard]

To be run from the root of the repository. It leaves millions of rows in the store, and counts on a
window of at least ten seconds.

Every answer is judged; the refusal of a late or malformed transaction is the right answer to it.
503 and 429 with Retry-After are no failures: they are counted under names of their own, and whoever
got one waits as long as it says.

Admitted limits: locust keeps response times in whole milliseconds, and above 100 with two digits.
Its client sends a request again when a kept connection turns out to be closed, so the service may
have accepted more than is counted here, never less.

Exit status: 0 when the thresholds hold, 1 when one does not or nothing was answered rightly.
"""

import argparse
import itertools
import json
import random
import time
from pathlib import Path
from typing import Any, Final

from locust import FastHttpUser, events, log, task
from locust.contrib.fasthttp import LocustBadStatusCode, ResponseContextManager
from locust.env import Environment
from locust.runners import WorkerRunner

from loadtest import scenarios
from loadtest.scenarios import Exchange

# A burst ends every half minute.
BURST_PERIOD_SECONDS: Final = 30.0
BURST_FACTOR: Final = 3
# Whoever waits for an answer when the time is up still gets it, so that it can be counted.
LAST_ANSWERS_SECONDS: Final = 5.0
PERCENTILES: Final = (50, 95, 99)

_REFUSED: Final = ", refused with "

_posts = itertools.count()
_batches = itertools.count()
_looks = itertools.cycle(scenarios.LOOKS)


class Client(FastHttpUser):
    """One connection, on which requests fall due at random, at a steady rate on average."""

    abstract = True
    connection_timeout = 5.0
    network_timeout = 30.0
    requests_per_second = 1.0

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._due = time.monotonic()
        self._retry_after_seconds = 0

    def wait_time(self) -> float:
        """Until the next request is due; what a slow answer has made late is due at once."""
        now = time.monotonic()
        self._due = max(self._due + random.expovariate(self.requests_per_second), now)
        if self._retry_after_seconds:
            self._due = now + self._retry_after_seconds
            self._retry_after_seconds = 0
        return self._due - now

    def exchange(self, exchange: Exchange) -> None:
        """Send one request and count its answer as a success or as a failure."""
        with self.client.request(
            exchange.method,
            exchange.path,
            name=exchange.name,
            data=exchange.body or None,
            headers={"Content-Type": exchange.media_type} if exchange.body else {},
            catch_response=True,
        ) as response:
            lost = response.request_meta["exception"]
            if lost is not None and not isinstance(lost, LocustBadStatusCode):
                response.failure(lost)
            elif response.status_code in (429, 503):
                self._back_off(response)
            elif complaint := exchange.judge(response.status_code, response.content or b""):
                response.failure(complaint)
            else:
                response.success()

    def _back_off(self, response: ResponseContextManager) -> None:
        seconds: Any = response.headers.get("retry-after") if response.headers else None
        if not seconds or not seconds.isdecimal():
            response.failure(f"{response.status_code} without the seconds to retry after")
            return
        self._retry_after_seconds = int(seconds)
        response.request_meta["name"] += f"{_REFUSED}{response.status_code}"
        response.success()


class PostingClient(Client):
    """Posts transactions one by one; in a burst, three times as many."""

    weight = 6
    requests_per_second = 15.0

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._steady_rate = self.requests_per_second
        options: Any = environment.parsed_options
        self._burst_seconds: float = options.burst

    @task
    def post(self) -> None:
        """Post the next transaction of all posting clients."""
        seconds = time.time() - self.environment.stats.start_time
        in_burst = BURST_PERIOD_SECONDS - seconds % BURST_PERIOD_SECONDS <= self._burst_seconds
        self.requests_per_second = self._steady_rate * (BURST_FACTOR if in_burst else 1)
        self.exchange(scenarios.post(next(_posts), _now_ms(), in_burst=in_burst))


class BatchClient(Client):
    """Posts a thousand transactions at once."""

    weight = 1
    requests_per_second = 4.0

    @task
    def post(self) -> None:
        """Post the next batch of all batch clients."""
        self.exchange(scenarios.batch(next(_batches), _now_ms()))


class Dashboard(Client):
    """Shows the statistics to somebody."""

    weight = 3
    requests_per_second = 4.0

    @task
    def look(self) -> None:
        """Ask for what the dashboards show next."""
        self.exchange(next(_looks))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _burst(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= BURST_PERIOD_SECONDS:
        raise argparse.ArgumentTypeError(f"must be 0 to {BURST_PERIOD_SECONDS:g}")
    return seconds


def add_arguments(parser: argparse.ArgumentParser, **_: object) -> None:
    """Add our own options to locust's, each with a variable of the environment."""
    ours: Any = parser.add_argument_group("Millrace")
    ours.add_argument(
        "--burst",
        type=_burst,
        default=0.0,
        metavar="SECONDS",
        env_var="MILLRACE_LOCUST_BURST",
        help=f"post {BURST_FACTOR} times as much for so long every {BURST_PERIOD_SECONDS:g} s",
    )
    ours.add_argument(
        "--max-failure-ratio",
        type=float,
        default=0.0,
        env_var="MILLRACE_LOCUST_MAX_FAILURE_RATIO",
        help="the share of failures that is still a success (default 0)",
    )
    ours.add_argument(
        "--p99-below-ms",
        type=float,
        env_var="MILLRACE_LOCUST_P99_BELOW_MS",
        help="what the 99th percentile under every name must lie below",
    )
    ours.add_argument(
        "--summary-json",
        metavar="FILE",
        env_var="MILLRACE_LOCUST_JSON",
        help="write the figures of the summary there",
    )


def prepare(environment: Environment, **_: object) -> None:
    """Let the last answers arrive, unless the command line says how long to wait for them."""
    environment.stop_timeout = environment.stop_timeout or LAST_ANSWERS_SECONDS


def conclude(environment: Environment, **_: object) -> None:
    """Sum the run up, judge it, and set the exit status by that."""
    if isinstance(environment.runner, WorkerRunner):
        return  # The master has the figures of all.
    options: Any = environment.parsed_options
    summary = summarize(environment)
    complaints = summary["complaints"] = find_complaints(environment, summary)
    environment.process_exit_code = 1 if complaints else 0
    if options.summary_json:
        # Made a path only here: locust sends the options to its workers, and cannot send a Path.
        file = Path(options.summary_json)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    # Locust prints its tables after this event and before that one; the short of it comes last.
    environment.events.quit.add_listener(lambda **_: print("\n".join(worded(summary)), flush=True))


def summarize(environment: Environment) -> dict[str, Any]:
    """The figures of the run."""
    stats = environment.stats
    entries = sorted(stats.entries.values(), key=lambda entry: entry.name)
    seconds = (stats.last_request_timestamp or stats.start_time) - stats.start_time
    right = {entry.name: entry.num_requests - entry.num_failures for entry in entries}
    singles, batched = (
        sum(right.get(name, 0) * items for name, items in accepted.items())
        for accepted in (scenarios.ACCEPTED_BY_SINGLE, scenarios.ACCEPTED_BY_BATCH)
    )
    return {
        "seconds": round(seconds, 3),
        "accepted": singles + batched,
        "accepted_singles": singles,
        "accepted_in_batches": batched,
        "accepted_per_second": round((singles + batched) / seconds, 1) if seconds else 0.0,
        "requests": sum(entry.num_requests for entry in entries),
        "failures": sum(entry.num_failures for entry in entries),
        "refused": sum(count for name, count in right.items() if _REFUSED in name),
        "names": [
            {
                "method": entry.method,
                "name": entry.name,
                "requests": entry.num_requests,
                "failures": entry.num_failures,
                **{
                    f"p{each}_ms": entry.get_response_time_percentile(each / 100) for each in PERCENTILES
                },
            }
            for entry in entries
        ],
        "failure_messages": [
            {"name": error.name, "message": str(error.error), "count": error.occurrences}
            for error in stats.errors.values()
        ],
    }


def find_complaints(environment: Environment, summary: dict[str, Any]) -> list[str]:
    """Why the run is no success: one line each."""
    options: Any = environment.parsed_options
    requests, failures = summary["requests"], summary["failures"]
    complaints = []
    if requests == failures + summary["refused"]:
        complaints.append("nothing was answered rightly")
    if failures > options.max_failure_ratio * requests:
        complaints.append(f"{failures} of {requests} failed, above {options.max_failure_ratio:g}")
    if options.p99_below_ms is not None:
        complaints += [
            f"p99 of {each['method']} {each['name']} is {each['p99_ms']} ms, "
            f"not below {options.p99_below_ms:g} ms"
            for each in summary["names"]
            if each["p99_ms"] >= options.p99_below_ms
        ]
    if environment.runner is not None and environment.runner.exceptions:
        complaints.append("a client raised an exception")
    if log.unhandled_greenlet_exception:
        complaints.append("locust itself raised an exception")
    return complaints


def worded(summary: dict[str, Any]) -> list[str]:
    """The lines to print."""
    lines = [
        f"accepted    {summary['accepted']:,} in {summary['seconds']:.1f} s, "
        f"{summary['accepted_per_second']:,.0f} a second",
        f"  singly    {summary['accepted_singles']:,}",
        f"  batched   {summary['accepted_in_batches']:,}",
        f"requests    {summary['requests']:,}",
        f"  refused   {summary['refused']:,}",
        f"  failed    {summary['failures']:,}",
        f"{'requests':>12} {'p50':>6} {'p95':>6} {'p99':>6}  ms",
    ]
    lines += [
        f"{each['requests']:>12,} {each['p50_ms']:>6} {each['p95_ms']:>6} {each['p99_ms']:>6}  "
        f"{each['method']} {each['name']}"
        for each in summary["names"]
    ]
    lines += [
        f"failed      {each['count']:,} x {each['name']}: {each['message']}"
        for each in summary["failure_messages"]
    ]
    return lines + [f"threshold   {complaint}" for complaint in summary["complaints"]]


events.init_command_line_parser.add_listener(add_arguments)
events.init.add_listener(prepare)
events.quitting.add_listener(conclude)
