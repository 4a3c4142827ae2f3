"""Measure the service, and write a page about it.

    python -m loadtest.report [--quick | --tiny] [--rounds N] [--output DIR] [--seed N] [--redraw]

Writes report.html, which needs nothing beside it, report.png for a README, and report.json with the
raw figures that both are made of. `--redraw` makes both anew from that JSON and measures nothing.
Needs Linux, and nothing else to do on the machine if the figures are to mean something.

Exit status: 0 when all was measured and written, 1 when the service answered something that makes a
measurement worthless, 2 when nothing sensible can be done.
"""

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from loadtest.report.bare import measure_bare, measure_edge_errors
from loadtest.report.digest import Report, digest
from loadtest.report.fill import has_batches
from loadtest.report.loads import measure_loads
from loadtest.report.machine import machine, versions
from loadtest.report.page import write_page
from loadtest.report.plan import FULL, QUICK, TINY, WITHOUT_BATCHES_IN_WINDOW_MAX, Plan
from loadtest.report.progress import Progress
from loadtest.report.reads import measure_reads
from loadtest.report.results import Circumstances, Measured
from loadtest.report.service import ROOT, Cores, Service, ServiceError, choose_cores, on_core
from loadtest.report.wire import UnexpectedAnswerError

SEED: Final = 20_260_102
_JSON: Final = "report.json"


class _Kept(msgspec.Struct):
    """What a page is drawn from again; its figures are made anew."""

    measured: Measured


def measure(plan: Plan, cores: Cores, directory: Path, seed: int, command: str) -> Measured:
    """Measure everything, one thing after another."""
    started = time.monotonic()
    date = datetime.now(UTC)
    with Service(cores.service, DATABASE_URL="memory://") as service:
        batched = has_batches(service.address)
    progress = Progress(plan, batched)
    try:
        reads = list(measure_reads(plan, cores, batched, seed, progress))
        loads = list(measure_loads(plan, cores, directory, seed, progress))
        bare = [run for runs in measure_bare(plan, cores, seed, progress) for run in runs]
        edge_errors = measure_edge_errors(seed)
    finally:
        progress.close()
    circumstances = Circumstances(
        date=date.strftime("%Y-%m-%d %H:%M UTC"),
        command=command,
        plan=plan,
        seed=seed,
        seconds=round(time.monotonic() - started, 1),
        machine=machine(cores, directory),
        versions=versions(),
        notes=list(_notes(plan, cores, batched)),
    )
    return Measured(
        circumstances=circumstances, reads=reads, bare=bare, edge_errors=edge_errors, loads=loads
    )


def _notes(plan: Plan, cores: Cores, batched: bool) -> list[str]:
    notes: list[str] = []
    if plan.name != FULL.name:
        notes.append(
            f"This is the {plan.name} run: fewer transactions, rounds and requests than the full one. "
            "It shows that the measurement works, not what the service can do."
        )
    if plan.in_window(batched) != plan.in_window(True):
        notes.append(
            "The service takes no batches: the window was filled one transaction a request, and "
            f"therefore with no more than {WITHOUT_BATCHES_IN_WINDOW_MAX:,} of them.".replace(",", " ")
        )
    if cores.service is None:
        notes.append("There is one core only: service and client took it from each other.")
    return notes


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="report", description="Measure, and write a page about it.")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument(
        "--quick", dest="plan", action="store_const", const=QUICK, help="within a minute"
    )
    extent.add_argument(
        "--tiny", dest="plan", action="store_const", const=TINY, help="just to see it turn"
    )
    parser.add_argument("--rounds", type=int, help="of the reads over N; more of them tell more")
    parser.add_argument("--output", type=Path, default=ROOT / "loadtest" / "results", metavar="DIR")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--redraw", action="store_true", help="from the JSON, without measuring")
    parser.set_defaults(plan=FULL)
    options = parser.parse_args(arguments)
    if options.rounds is not None:
        if options.rounds < 2:
            parser.error("--rounds must be at least 2")
        options.plan = msgspec.structs.replace(options.plan, rounds=options.rounds)
    return options


def _command(options: argparse.Namespace) -> str:
    """The command line, but for a directory that is nobody's business."""
    words = ["python -m loadtest.report"]
    if options.plan.name != FULL.name:
        words.append(f"--{options.plan.name}")
    if options.rounds is not None:
        words.append(f"--rounds {options.rounds}")
    if options.seed != SEED:
        words.append(f"--seed {options.seed}")
    return " ".join(words)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; the result is the exit status."""
    options = _options(arguments)
    directory: Path = options.output
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if options.redraw:
            measured = msgspec.json.decode((directory / _JSON).read_bytes(), type=_Kept).measured
        else:
            cores = choose_cores()
            with on_core(cores.client):
                measured = measure(options.plan, cores, directory, options.seed, _command(options))
    except (OSError, ServiceError, msgspec.DecodeError) as problem:
        print(f"report: {problem}", file=sys.stderr)
        return 2
    except UnexpectedAnswerError as problem:
        print(f"report: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("report: interrupted, nothing was written", file=sys.stderr)
        return 130
    report = Report(digest(measured), measured)
    (directory / _JSON).write_bytes(msgspec.json.encode(report) + b"\n")
    write_page(directory, report.measured, report.figures)
    for line in (*measured.circumstances.notes, f"written to {directory}"):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
