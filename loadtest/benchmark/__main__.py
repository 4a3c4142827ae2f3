"""Measure the service beside its peers, and hold the ratios against their targets.

    python -m loadtest.benchmark [--rounds N] [--seconds N] [--only NAME ...] [--json FILE]

All servers share one core, the load has another, and one arm is loaded at a time. Arms take turns
round by round, in an order that is rotated and reversed, and a ratio is taken within a round, so that
a machine that slows down slows both of its sides. Figures are of this machine in these minutes;
ratios are what travels.

Exit status: 0 when every arm that can run here did (a ratio below its target is a finding, no
failure; a peer that is not installed or a part that is not built is named and skipped), 1 when an arm
failed, 2 when nothing can be measured, 130 after an interrupt.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from tqdm import tqdm

from loadtest.benchmark.arms import ARMS, BATCH_ITEMS, TARGETS, Arm, chosen
from loadtest.benchmark.bench import Bench, Turn
from loadtest.benchmark.load import BATCH_CONNECTIONS, CONNECTIONS, LoadError, installed
from loadtest.benchmark.machine import choose_cores, describe
from loadtest.benchmark.processes import Processes, heed_interrupts
from loadtest.benchmark.report import (
    OTHERS_SHARE_MAX,
    Ratio,
    Row,
    arm_table,
    client_ceiling,
    judge,
    others_share,
    ratio_table,
    share,
    summarize,
    thousands,
)
from loadtest.benchmark.servers import UnavailableError

WARM_UP_SECONDS: Final = 2
# A turn must fit into the window, with what the tool itself does around it.
SECONDS_MAX: Final = 30
# For each turn beyond its own time; generous, as it only bounds what a killed run leaves behind.
_TURN_SLACK_SECONDS: Final = 60

_ROOT: Final = Path(__file__).parents[2]
_DATA: Final = _ROOT / "data"
_RESULTS: Final = _ROOT / "loadtest" / "results" / "benchmark.json"


class Options(msgspec.Struct, frozen=True):
    """What the command line asks for."""

    rounds: int
    seconds: int
    arms: list[Arm]
    json: Path


class Result(msgspec.Struct, frozen=True):
    """A whole run, as it is written to the file."""

    command: list[str]
    started: datetime
    machine: dict[str, object]
    rounds_asked: int
    seconds: int
    connections: int
    batch_connections: int
    arms: list[Row]
    ratios: list[Ratio]
    others_share: float | None
    client_ceiling_requests_per_second: dict[str, float | None]
    failed: dict[str, str]
    skipped: dict[str, str]
    rounds: list[dict[str, Turn]]
    """Each round's turns, in the order they were taken."""


def turn_order(names: list[str], number: int) -> list[str]:
    """The order of one round: each is the reverse of the one before, and every pair begins later."""
    first = number // 2 % len(names) if names else 0
    order = names[first:] + names[:first]
    return order[::-1] if number % 2 else order


def measure(
    bench: Bench, options: Options
) -> tuple[list[dict[str, Turn]], dict[str, str], dict[str, str]]:
    """Every round; and of the arms that are not in it, which failed and which were skipped."""
    arms = {arm.name: arm for arm in options.arms}
    failed: dict[str, str] = {}
    skipped: dict[str, str] = {}
    rounds: list[dict[str, Turn]] = []

    def fail(name: str, problem: LoadError) -> None:
        failed[name] = f"FAILED: {problem}"
        tqdm.write(f"benchmark: {name} {failed[name]}", file=sys.stderr)

    with tqdm(total=len(arms) * (options.rounds + 1), unit="turn", disable=None) as progress:
        for name, arm in arms.items():
            progress.set_postfix_str(f"warming up {name}")
            try:
                bench.prepare(arm, WARM_UP_SECONDS)
            except UnavailableError as problem:
                skipped[name] = f"skipped: {problem}"
            except LoadError as problem:
                fail(name, problem)
            progress.update()
        for number in range(options.rounds):
            turns: dict[str, Turn] = {}
            rounds.append(turns)
            for name in turn_order(list(arms), number):
                if name not in failed and name not in skipped:
                    progress.set_postfix_str(f"round {number + 1}, {name}")
                    try:
                        turns[name] = bench.turn(arms[name], options.seconds)
                    except LoadError as problem:
                        fail(name, problem)
                progress.update()
    return rounds, failed, skipped


@contextmanager
def opened(options: Options, cores: tuple[int, int]) -> Iterator[Bench]:
    """A bench with a directory on the disk the service would use; nothing of it remains."""
    turns = len(options.arms) * (options.rounds + 1)
    _DATA.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-", dir=_DATA) as directory,
        Processes(Path(directory), turns * (options.seconds + _TURN_SLACK_SECONDS)) as processes,
    ):
        yield Bench(processes, Path(directory), *cores)


def print_result(result: Result) -> None:
    """What was found, to be read by people."""
    machine = result.machine
    print(f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}")
    print(
        f"Rounds: {result.rounds_asked}, of {result.seconds} s; connections: {result.connections}, "
        f"for batches {result.batch_connections}; one core for the server, one for the client\n"
    )
    print("\n".join(arm_table(result.arms)))
    print()
    for name, ceiling in result.client_ceiling_requests_per_second.items():
        what = f"about {thousands(ceiling)} requests/s" if ceiling else "not measured"
        print(f"The client itself, {name}: {what}")
    if result.others_share is not None and result.others_share > OTHERS_SHARE_MAX:
        print(f"Others took {share(result.others_share)} of a core: repeat it on an idle machine")
    if result.ratios:
        print("\n" + "\n".join(ratio_table(result.ratios)))


def _options(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.benchmark",
        description="Measure the service beside its peers, and hold the ratios against their targets.",
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each arm takes its turn")
    parser.add_argument("--seconds", type=int, default=4, help="how long a turn lasts")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        choices=[arm.name for arm in ARMS],
        help=f"only these arms, of: {' '.join(arm.name for arm in ARMS)}",
    )
    parser.add_argument("--json", type=Path, default=_RESULTS, help="where every figure is written")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    if not 1 <= given.seconds <= SECONDS_MAX:
        parser.error(f"--seconds must be 1 to {SECONDS_MAX}")
    return Options(given.rounds, given.seconds, chosen(given.only), given.json)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; the result is the exit status."""
    options = _options(arguments)
    started = datetime.now(UTC)
    cores = choose_cores()
    if cores is None:
        print("benchmark: needs two cores, one for the server and one for the load", file=sys.stderr)
        return 2
    for program, package in (("wrk", "wrk"), ("taskset", "util-linux"), ("timeout", "coreutils")):
        if installed(program) is None:
            print(
                f"benchmark: {program} is not installed (Debian: apt-get install {package})",
                file=sys.stderr,
            )
            return 2
    heed_interrupts()
    try:
        with opened(options, cores) as bench:
            rounds, failed, skipped = measure(bench, options)
    except KeyboardInterrupt:
        print("benchmark: interrupted; every server has been ended", file=sys.stderr)
        return 130
    reasons = failed | skipped
    # What an arm did before it failed is no figure to compare with.
    sound = [{name: turn for name, turn in turns.items() if name not in failed} for turns in rounds]
    names = {arm.name for arm in options.arms}
    result = Result(
        command=[
            "python",
            "-m",
            "loadtest.benchmark",
            *(sys.argv[1:] if arguments is None else arguments),
        ],
        started=started,
        machine=describe(*cores),
        rounds_asked=options.rounds,
        seconds=options.seconds,
        connections=CONNECTIONS,
        batch_connections=BATCH_CONNECTIONS,
        arms=[summarize(arm, rounds, reasons.get(arm.name, "")) for arm in options.arms],
        ratios=[judge(target, sound) for target in TARGETS if names >= {target.arm, target.over}],
        others_share=others_share(sound),
        client_ceiling_requests_per_second={
            "single transactions": client_ceiling("nginx", sound),
            f"batches of {BATCH_ITEMS}": client_ceiling("nginx-batch", sound, BATCH_ITEMS),
        },
        failed=failed,
        skipped=skipped,
        rounds=rounds,
    )
    print_result(result)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
