"""Holds what a running service answers against the rows of its store, while both go on.

The store is looked at before the service is asked and again behind it. What is there before must be in
the answer, what is not there behind must not; where nothing arrives in between, figures must be equal.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from app.client.service import Service
from app.client.values import Figures, Statistics
from app.core.money import UNITS_PER_ONE, format_amount
from app.core.summary import EMPTY
from app.store.verification import Recount, Recounts, Verification

# What is counted a moment after it was kept may be missed once, but not every time.
_ROUNDS: Final = 3
# Of the window: all of it, and parts whose edges lie elsewhere.
_PARTS: Final = (1, 2, 6)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING: Final = Recount()
_ZERO: Final = Decimal(0)
_NO_FIGURES: Final = Figures(_ZERO, _ZERO, _ZERO, _ZERO, 0)


class Asked(NamedTuple):
    """What was answered of a part of the window, and what the rows say before and behind."""

    told: Statistics
    before: Recounts
    behind: Recounts


async def compare(service: Service, verification: Verification) -> list[str]:
    """What differs, a line each. Raises ClientError and StoreUnusable."""
    differences: list[str] = []
    for _ in range(_ROUNDS):
        first = await service.statistics()
        windows = [int(first.window_seconds * 1000) // part for part in _PARTS]
        async with verification.snapshot() as before:
            # By now every node has heard of what is in there.
            await asyncio.sleep(2 * (first.max_lag_ms or 0) / 1000)
            answers = [await service.statistics(window=f"{window_ms}ms") for window_ms in windows]
            found_before = [await before.recount(_from_ms(told)) for told in answers]
        async with verification.snapshot() as behind:
            found_behind = [await behind.recount(_from_ms(told)) for told in answers]
        if before.epoch != behind.epoch:
            differences = ["statistics: transactions are deleted all the time, nothing can be compared"]
            continue
        differences = [
            line
            for asked in map(Asked, answers, found_before, found_behind)
            for line in _differences(asked)
        ]
        if not differences:
            break
    return differences


def shown(recounts: Recounts) -> Iterator[str]:
    """Recounted figures, a line for each currency."""
    for currency, (summary, _) in recounts.items():
        measures = (summary.sum_units, summary.min_units, summary.max_units)
        total, lowest, highest = map(format_amount, measures)
        yield f"{currency}: count {summary.count}, sum {total}, min {lowest}, max {highest}"


def _from_ms(told: Statistics) -> int:
    """The first instant that an answer counts."""
    as_of_ms = (told.as_of - _EPOCH) // timedelta(milliseconds=1)
    from_ms = as_of_ms - int(told.window_seconds * 1000)
    return from_ms // told.resolution_ms * told.resolution_ms


def _differences(asked: Asked) -> Iterator[str]:
    told, before, behind = asked
    for currency in sorted({*told.by_currency, *before, *behind}):
        figures = told.by_currency.get(currency, _NO_FIGURES)
        bounds = _bounds(before.get(currency, _NOTHING), behind.get(currency, _NOTHING))
        for name, (least, most) in bounds.items():
            answered = _units(figures, name)
            if not least <= answered <= most:
                where = f"statistics of {told.window_seconds} s: {currency} {name}"
                rows = _worded(name, least, most)
                yield f"{where} is {_word(name, answered)} at the service, {rows} by its rows"


def _bounds(before: Recount, behind: Recount) -> Mapping[str, tuple[int, int]]:
    """Between what each figure must lie, whichever of what arrived meanwhile is in it."""
    few, many = before.summary, behind.summary
    negative = behind.negative_units - before.negative_units
    positive = many.sum_units - few.sum_units - negative
    bounds = {
        "count": (few.count, many.count),
        "sum": (few.sum_units + negative, few.sum_units + positive),
    }
    if few != EMPTY:
        bounds["min"] = many.min_units, few.min_units
        bounds["max"] = few.max_units, many.max_units
    return bounds


def _units(figures: Figures, name: str) -> int:
    if name == "count":
        return figures.count
    return int(Decimal(getattr(figures, name)) * UNITS_PER_ONE)


def _worded(name: str, least: int, most: int) -> str:
    if least == most:
        return _word(name, least)
    return f"{_word(name, least)} to {_word(name, most)}"


def _word(name: str, value: int) -> str:
    return str(value) if name == "count" else format_amount(value)


def tally_differences(recounts: Recounts, tallied: Mapping[str, object]) -> Sequence[str]:
    """Currencies of which a start would count something else than there is."""
    return [
        f"statistics: a start would count other figures of {currency} than its rows have"
        for currency in sorted({*recounts, *tallied})
        if tallied.get(currency, EMPTY) != recounts.get(currency, _NOTHING).summary
    ]
