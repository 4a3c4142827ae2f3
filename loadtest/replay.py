"""Post a file of real transactions to a running service, and check that it counted them exactly.

    python -m loadtest.replay FILE [--feed] [--url URL] [--connections N] [--rate N] [--limit N]

FILE is NDJSON, plain or gzip. Of each row `user_id`, `amount` and `currency` are sent as they are
written; `timestamp` becomes the moment of sending, so that the row falls into the window. Every
free connection takes the next row from the file itself: no queue stands between them.

With --feed the rows are posted into the feed as history: with their own timestamps and all that their
source says of them, its words for types and the like in the metadata. Then the feed is asked for them,
page by page.

Exit status: 0 when every row sent was answered and statistics or feed do not disagree (a comparison
that cannot be made is said, and is no disagreement), 1 when they do, when a row went unanswered or
the service failed (5xx), 2 when nothing sensible can be done. Refused rows are only reported.
An interrupt ends the sending, waits for the answers under way and reports on what was sent; a
second one does not wait, nor does one that comes while the feed is asked.
"""

import argparse
import asyncio
import math
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import uvloop
from tqdm import tqdm

from app.client.wire import Address, Client, LostAnswerError, NotConnectedError, parse_address
from loadtest.pace import Pace
from loadtest.rows import Row, UnreadableError, open_rows, read_rows
from loadtest.tally import Outcome, Tally, Verdict
from loadtest.witness import FeedWitness, StatisticsWitness, Witness

CONNECTIONS_MAX: Final = 1024
RECONNECT_SECONDS: Final = 5.0
# A timer that fires a little late is no sign of a service that cannot keep up.
BEHIND_SECONDS_SHOWN_MIN: Final = 0.01


class UsageError(Exception):
    """Nothing sensible can be done; the message is one line that says why."""


class Options(msgspec.Struct, frozen=True):
    """What the command line asks for."""

    file: Path
    url: str
    address: Address
    connections: int
    rate_per_second: float
    rows_max: int | None
    into_feed: bool


class Report(msgspec.Struct, frozen=True):
    """What a run came to."""

    tally: Tally
    verdict: Verdict
    seconds: float
    behind_seconds_max: float
    ended_early: str
    """Why the run ended before its rows did; "" when it did not."""
    unreadable: str
    """The line that could not be read; "" when there was none."""
    witness: str
    """What was asked for the verdict."""

    @property
    def exit_status(self) -> int:
        """As the head of this file says."""
        if self.unreadable:
            return 2
        if self.tally.unanswered or self.tally.server_errors:
            return 1
        return 1 if self.verdict.outcome in (Outcome.DISAGREE, Outcome.FAILED) else 0


class Replay:
    """One run: the rows, the connections that take them, and what became of each."""

    def __init__(self, options: Options, rows: Iterator[Row]) -> None:
        self._options = options
        self._rows = rows
        witness: Witness = (
            FeedWitness(options.address) if options.into_feed else StatisticsWitness(options.address)
        )
        self._witness = witness
        self._tally = witness.tally
        self._pace = Pace(options.rate_per_second)
        self._ended_early = ""
        self._unreadable = ""
        self._posting: list[asyncio.Task[None]] = []
        self._asking: asyncio.Task[Verdict] | None = None

    async def run(self) -> Report:
        """Post every row, and ask the witness, who has looked before."""
        try:
            await self._witness.begin()
        except (NotConnectedError, LostAnswerError, ValueError) as problem:
            raise UsageError(f"{self._options.url}: {problem}") from None
        loop = asyncio.get_running_loop()
        for interrupt in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(interrupt, self._interrupt)
        started = time.monotonic()
        await self._post_all()
        seconds = time.monotonic() - started
        return Report(
            self._tally,
            await self._verdict(),
            seconds,
            self._pace.behind_seconds_max,
            self._ended_early,
            self._unreadable,
            self._witness.name,
        )

    async def _verdict(self) -> Verdict:
        self._asking = asyncio.create_task(self._witness.verdict())
        try:
            return await self._asking
        except asyncio.CancelledError:
            return Verdict(Outcome.NOT_COMPARED, ("interrupted",))

    async def _post_all(self) -> None:
        self._pace = Pace(self._options.rate_per_second)
        with tqdm(total=self._options.rows_max, unit=" rows", disable=None) as bar:
            self._posting = [
                asyncio.create_task(self._post_rows(bar.update))
                for _ in range(self._options.connections)
            ]
            ends = await asyncio.gather(*self._posting, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _post_rows(self, answered: Callable[[], object]) -> None:
        async with Client(self._options.address, connect_seconds=RECONNECT_SECONDS) as client:
            # The row comes before its turn: at the file's end nobody waits for a turn in vain.
            while (row := self._next_row()) is not None and await self._pace.turn():
                await self._post(client, row)
                answered()

    def _next_row(self) -> Row | None:
        try:
            return next(self._rows, None)
        except UnreadableError as problem:
            self._unreadable = str(problem)
            return None

    async def _post(self, client: Client, row: Row) -> None:
        tally = self._tally
        if not client.connected:
            try:
                await client.connect()
            except NotConnectedError as problem:
                tally.not_sent[f"not sent: {problem}"] += 1
                self._end_early("the service can no longer be reached")
                return
        timestamp_ms = time.time_ns() // 1_000_000
        tally.sent += 1
        try:
            answer = await client.post(self._witness.path, row.body(timestamp_ms))
        except LostAnswerError as loss:
            tally.lost[str(loss)] += 1
        except asyncio.CancelledError:
            tally.lost["not waited for"] += 1
            raise
        else:
            tally.record(row, timestamp_ms, answer)

    def _end_early(self, reason: str) -> None:
        self._ended_early = self._ended_early or reason
        self._pace.stop()

    def _interrupt(self) -> None:
        if self._pace.stopped:
            for posting in self._posting:
                posting.cancel()
        if self._asking is not None:
            self._asking.cancel()
        self._end_early("interrupted")


def summary(report: Report) -> str:
    """The report as readable lines, without a newline at the end."""
    tally = report.tally
    lines = [
        _line("sent", f"{tally.sent}"),
        _line("accepted (201)", f"{tally.accepted}"),
        _line("late (204)", f"{tally.late}"),
        _line("refused", f"{tally.refused.total()}"),
        *_by_reason(tally.refused),
        _line("connection errors", f"{tally.unanswered}"),
        *_by_reason(tally.lost + tally.not_sent),
        _line("seconds", f"{report.seconds:.2f}"),
        _line("requests per second", f"{tally.sent / max(report.seconds, 1e-9):.0f}"),
    ]
    if tally.accepted_uncounted:
        lines.insert(2, _line("  kept, not counted", f"{tally.accepted_uncounted}"))
    if report.behind_seconds_max > BEHIND_SECONDS_SHOWN_MIN:
        lines.append(_line("behind the rate by", f"up to {report.behind_seconds_max:.2f} s"))
    if report.ended_early:
        lines.append(_line("ended early", report.ended_early))
    verdict = report.verdict
    lines.append(_line(report.witness, f"{verdict.outcome}: {verdict.reasons[0]}"))
    lines += [_line("", reason) for reason in verdict.reasons[1:]]
    return "\n".join(lines)


def _line(name: str, value: str) -> str:
    return f"{name:<20} {value}"


def _by_reason(counted: Counter[str]) -> list[str]:
    return [_line("", f"{count} x {reason}") for reason, count in counted.most_common()]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _options(arguments: list[str] | None) -> Options:
    parser = _Parser(prog="replay", description="Post a file of transactions one by one.")
    parser.add_argument("file", type=Path, help="NDJSON, plain or gzip")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the service listens")
    parser.add_argument(
        "--connections", type=int, default=32, help=f"kept connections, 1 to {CONNECTIONS_MAX}"
    )
    parser.add_argument(
        "--rate", type=float, default=math.inf, help="requests per second over all connections"
    )
    parser.add_argument("--limit", type=int, default=None, help="send only the first N rows")
    parser.add_argument("--feed", action="store_true", help="post as history, and read it back")
    given = parser.parse_args(arguments)
    if not 1 <= given.connections <= CONNECTIONS_MAX:
        parser.error(f"--connections must be 1 to {CONNECTIONS_MAX}")
    if not given.rate > 0:
        parser.error("--rate must be above 0")
    if given.limit is not None and given.limit < 1:
        parser.error("--limit must be at least 1")
    try:
        address = parse_address(given.url)
    except ValueError as problem:
        parser.error(f"--url {problem}")
    return Options(
        given.file, given.url, address, given.connections, given.rate, given.limit, given.feed
    )


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; the result is the exit status."""
    options = _options(arguments)
    try:
        with open_rows(options.file) as file:
            replay = Replay(options, read_rows(file, options.rows_max, as_history=options.into_feed))
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                report = runner.run(replay.run())
    except (UsageError, UnreadableError) as problem:
        print(f"replay: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("replay: interrupted before anything was sent", file=sys.stderr)
        return 130
    print(summary(report))
    if report.unreadable:
        print(f"replay: {options.file}, {report.unreadable}", file=sys.stderr)
    return report.exit_status


if __name__ == "__main__":
    sys.exit(main())
