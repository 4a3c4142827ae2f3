"""What the rounds come to: medians, ratios within a round, and the tables that show them."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from statistics import median
from typing import Final

import msgspec

from loadtest.benchmark.arms import Arm, Target
from loadtest.benchmark.bench import Turn

Turns = Mapping[str, Turn]

# Above it, a rate says more about the client than about the server.
CLIENT_SHARE_MAX: Final = 0.9

# The kernel's own work for the network is some of it.
OTHERS_SHARE_MAX: Final = 0.1

_MISSING: Final = "-"


class Spread(msgspec.Struct, frozen=True):
    """The middle of some figures, and how far they lie apart."""

    median: float
    min: float
    max: float

    @staticmethod
    def of(figures: Sequence[float]) -> "Spread":
        """The spread of at least one figure."""
        return Spread(median(figures), min(figures), max(figures))


class Figures(msgspec.Struct, frozen=True):
    """An arm's figures over all rounds. Shares are medians, of one core."""

    per_second: Spread
    p50_microseconds: Spread
    p99_microseconds: Spread
    client_share: float | None
    server_share: float | None


class Row(msgspec.Struct, frozen=True):
    """One arm. Where it has no figures, `reason` says why."""

    name: str
    what: str
    unit: str
    figures: Figures | None = None
    reason: str = ""


class Judgement(StrEnum):
    """How a ratio stands to its target."""

    BELOW = "below"
    REACHED = "reached"
    STRETCHED = "stretch reached"
    UNKNOWN = "not measured"


class Ratio(msgspec.Struct, frozen=True):
    """One target, and what was found: the median over rounds of the ratio within each."""

    what: str
    reach: float
    stretch: float
    judgement: Judgement
    found: Spread | None = None


def summarize(arm: Arm, rounds: Sequence[Turns], reason: str = "") -> Row:
    """An arm's row. An arm with a `reason` to be left out shows none of the figures it may have."""
    turns = [turns[arm.name] for turns in rounds if arm.name in turns]
    if reason or not turns:
        return Row(arm.name, arm.what, arm.unit, None, reason or "did not run")
    figures = Figures(
        Spread.of([turn.per_second for turn in turns]),
        Spread.of([turn.p50_microseconds for turn in turns]),
        Spread.of([turn.p99_microseconds for turn in turns]),
        _median_share([turn.client_share for turn in turns]),
        _median_share([turn.server_share for turn in turns]),
    )
    return Row(arm.name, arm.what, arm.unit, figures)


def judge(target: Target, rounds: Sequence[Turns]) -> Ratio:
    """A target's ratio, taken between turns of the same round only."""
    ratios = [
        turns[target.arm].per_second / turns[target.over].per_second
        for turns in rounds
        if target.arm in turns and target.over in turns
    ]
    if not ratios:
        return Ratio(target.what, target.reach, target.stretch, Judgement.UNKNOWN)
    found = Spread.of(ratios)
    if found.median >= target.stretch:
        judgement = Judgement.STRETCHED
    else:
        judgement = Judgement.REACHED if found.median >= target.reach else Judgement.BELOW
    return Ratio(target.what, target.reach, target.stretch, judgement, found)


def client_ceiling(name: str, rounds: Sequence[Turns], per_request: int = 1) -> float | None:
    """Requests a second the client could send with all of its core, from the cheapest server's arm."""
    ceilings = [
        turn.per_second / per_request / turn.client_share
        for turns in rounds
        if (turn := turns.get(name)) is not None and turn.client_share
    ]
    return median(ceilings) if ceilings else None


def others_share(rounds: Sequence[Turns]) -> float | None:
    """What the rest of the machine took of the two cores in the middle one of all turns."""
    return _median_share([turn.others_share for turns in rounds for turn in turns.values()])


def arm_table(rows: Sequence[Row]) -> list[str]:
    """The arms, a line each."""
    lines: list[tuple[str, ...]] = [
        ("arm", "", "median", "", "min", "max", "p50", "p99", "client", "server")
    ]
    notes = []
    for row in rows:
        figures = row.figures
        if figures is None:
            lines.append((row.name, row.what, row.reason))
            continue
        lines.append(
            (
                row.name,
                row.what,
                thousands(figures.per_second.median),
                row.unit,
                thousands(figures.per_second.min),
                thousands(figures.per_second.max),
                duration(figures.p50_microseconds.median),
                duration(figures.p99_microseconds.median),
                share(figures.client_share),
                share(figures.server_share),
            )
        )
        if figures.client_share is not None and figures.client_share > CLIENT_SHARE_MAX:
            notes.append(f"{row.name}: the client is at its limit; the server can do at least this")
    return [*_aligned(lines, left=(0, 1, 3)), *notes]


def ratio_table(ratios: Sequence[Ratio]) -> list[str]:
    """The targets, a line each."""
    lines: list[tuple[str, ...]] = [("ratio", "median", "min", "max", "reach", "stretch", "")]
    for ratio in ratios:
        found = ratio.found
        shown = (found.median, found.min, found.max) if found else (None, None, None)
        lines.append(
            (
                ratio.what,
                *(_MISSING if number is None else f"{number:.2f}" for number in shown),
                f"{ratio.reach:.2f}",
                f"{ratio.stretch:.2f}",
                ratio.judgement.value,
            )
        )
    return _aligned(lines, left=(0, 6))


def thousands(number: float) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,.0f}".replace(",", " ")


def duration(microseconds: float) -> str:
    """A time in a unit that leaves it short."""
    if microseconds < 1000:
        return f"{microseconds:.0f} µs"
    milliseconds = microseconds / 1000
    return f"{milliseconds:.2f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def share(part: float | None) -> str:
    """A part of one core."""
    return _MISSING if part is None else f"{part * 100:.0f} %"


def _median_share(shares: Sequence[float | None]) -> float | None:
    known = [part for part in shares if part is not None]
    return median(known) if known else None


def _aligned(lines: Sequence[tuple[str, ...]], left: Sequence[int]) -> list[str]:
    """Columns as wide as their widest cell. A line that ends early ends in a remark, of any length."""
    whole = [line for line in lines if len(line) == len(lines[0])]
    widths = [max(len(cell) for cell in column) for column in zip(*whole, strict=True)]
    for column in (0, 1):
        widths[column] = max(len(line[column]) for line in lines)
    aligned = []
    for line in lines:
        last = len(line) - 1
        cells = [
            cell.ljust(widths[column])
            if column in left or (column == last and len(line) < len(widths))
            else cell.rjust(widths[column])
            for column, cell in enumerate(line)
        ]
        aligned.append("  ".join(cells).rstrip())
    return aligned
