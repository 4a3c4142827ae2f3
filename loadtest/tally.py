"""What was answered, what the statistics should therefore say, and whether they do.

Sums are exact decimals; a step that would have to round raises instead of rounding.
"""

import decimal
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec

from app.client.wire import Answer
from loadtest.rows import Row

_EXACT: Final = decimal.Context(prec=200, traps=[decimal.Inexact, decimal.InvalidOperation])
# Together they keep every sum within the context's digits, so that none has to be rounded.
_LITERAL_BYTES_MAX: Final = 64
_DIGITS_EITHER_SIDE_MAX: Final = 60
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DIFFERENCES_SHOWN_MAX: Final = 20


class Figures(msgspec.Struct, frozen=True):
    """Exact figures of some transactions; all zero for none."""

    count: int
    sum: Decimal
    min: Decimal
    max: Decimal


class Statistics(Figures, frozen=True):
    """What `GET /stats` answers, as far as it is compared."""

    window_seconds: Decimal
    resolution_ms: Decimal
    as_of: datetime
    by_currency: dict[str, Figures]

    def age_ms(self, timestamp_ms: int) -> int:
        """How old a timestamp was when these figures were taken, by the service's clock."""
        return (self.as_of - _EPOCH) // timedelta(milliseconds=1) - timestamp_ms

    def surely_counts(self, timestamp_ms: int) -> bool:
        """Whether a transaction of that epoch millisecond must be in these figures."""
        # Above a resolution of 1 ms, up to one step of the window's old edge may be missing.
        sure_ms = self.window_seconds * 1000 - (self.resolution_ms - 1)
        return self.age_ms(timestamp_ms) <= sure_ms


_STATISTICS: Final = msgspec.json.Decoder(Statistics)
_PROBLEM_CODE: Final = msgspec.json.Decoder(dict[str, object])
_AMOUNT: Final = msgspec.json.Decoder(Decimal)
_CURRENCY: Final = msgspec.json.Decoder(str | None)


def read_statistics(answer: Answer) -> Statistics:
    """Decode an answer of `GET /stats`; ValueError says in words why it is none."""
    if answer.status != 200:
        raise ValueError(f"GET /stats answered {answer.status}")
    try:
        statistics = _STATISTICS.decode(answer.body)
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"GET /stats answered something else than statistics: {problem}") from None
    if statistics.as_of.tzinfo is None:
        raise ValueError("GET /stats answered an as_of without offset")
    return statistics


class Running:
    """Figures that grow by one amount at a time."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = self.min = self.max = Decimal(0)

    def add(self, amount: Decimal) -> None:
        """Count one more amount."""
        self.min = amount if self.count == 0 or amount < self.min else self.min
        self.max = amount if self.count == 0 or amount > self.max else self.max
        self.sum = _EXACT.add(self.sum, amount)
        self.count += 1

    def figures(self) -> Figures:
        """The figures so far."""
        return Figures(self.count, self.sum, self.min, self.max)


class Tally:
    """Every row that was sent, by what became of it."""

    def __init__(self) -> None:
        self.sent = 0
        self.accepted = 0
        self.accepted_uncounted = 0
        self.late = 0
        self.server_errors = 0
        self.refused: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.not_sent: Counter[str] = Counter()
        self.without_currency = 0
        self.without_number = 0
        self.oldest_accepted_ms: int | None = None
        self.overall = Running()
        self.by_currency: dict[bytes, Running] = {}

    @property
    def unanswered(self) -> int:
        """Rows of which nobody knows, or that could not be sent at all."""
        return self.lost.total() + self.not_sent.total()

    def record(self, row: Row, timestamp_ms: int, answer: Answer) -> None:
        """Put one answered row where it belongs."""
        status = answer.status
        if status == 201:
            self.accepted += 1
            self._accept(row, timestamp_ms, answer)
        elif status == 204:
            self.late += 1
        else:
            self.refused[f"{status} {_member(answer.body, 'code') or 'without a code'}"] += 1
            self.server_errors += status >= 500

    def _accept(self, row: Row, timestamp_ms: int, answer: Answer) -> None:
        # Kept as history only (LATE=keep): stored, but outside of the window.
        if b'"counted"' in answer.body and _member(answer.body, "counted") is False:
            self.accepted_uncounted += 1
        else:
            self._count(row, timestamp_ms)

    def _count(self, row: Row, timestamp_ms: int) -> None:
        if self.oldest_accepted_ms is None or timestamp_ms < self.oldest_accepted_ms:
            self.oldest_accepted_ms = timestamp_ms
        amount = exact_amount(row.amount)
        if amount is None:
            self.without_number += 1
            return
        self.overall.add(amount)
        if row.currency in (b"", b"null"):
            self.without_currency += 1
            return
        running = self.by_currency.get(row.currency)
        if running is None:
            running = self.by_currency.setdefault(row.currency, Running())
        running.add(amount)

    def currencies(self) -> dict[str, Figures]:
        """Figures of the rows that name a currency, by its code."""
        return {
            _CURRENCY.decode(literal) or "": running.figures()
            for literal, running in sorted(self.by_currency.items())
        }


def exact_amount(literal: bytes) -> Decimal | None:
    """The amount's exact value, or None where a service should not have accepted it."""
    if len(literal) > _LITERAL_BYTES_MAX:
        return None
    try:
        amount = _AMOUNT.decode(literal)
    except ValueError:
        return None
    if not amount.is_finite() or abs(amount.adjusted()) > _DIGITS_EITHER_SIDE_MAX:
        return None
    return amount


def _member(body: bytes, name: str) -> object:
    """A member of a JSON object, or None where the body is none or has none."""
    try:
        return _PROBLEM_CODE.decode(body).get(name)
    except (ValueError, RecursionError):
        return None


class Outcome(StrEnum):
    """How a comparison ended."""

    AGREE = "agree"
    DISAGREE = "disagree"
    NOT_COMPARED = "not compared"
    FAILED = "could not be read"


class Verdict(msgspec.Struct, frozen=True):
    """One comparison of the statistics with the tally, in words."""

    outcome: Outcome
    reasons: tuple[str, ...]


def compare(before: Statistics, tally: Tally, after: Statistics) -> Verdict:
    """Judge the statistics after a run; where that cannot be done fairly, say why instead."""
    obstacle = _obstacle(before, tally, after)
    if obstacle:
        return Verdict(Outcome.NOT_COMPARED, (obstacle,))
    expected = tally.currencies()
    differences = differences_between("overall", tally.overall.figures(), after)
    if tally.without_number:
        differences.append(f"accepted with an amount that is no number: {tally.without_number}")
    note = f"count, sum, min and max, overall and in {', '.join(sorted(expected)) or 'no currency'}"
    if tally.without_currency:
        note = f"overall only: accepted without a currency: {tally.without_currency}"
    else:
        nothing = Running().figures()
        for currency in sorted(expected.keys() | after.by_currency.keys()):
            differences += differences_between(
                currency, expected.get(currency, nothing), after.by_currency.get(currency, nothing)
            )
    if differences:
        return Verdict(Outcome.DISAGREE, tuple(differences[:DIFFERENCES_SHOWN_MAX]))
    return Verdict(Outcome.AGREE, (note,))


def _obstacle(before: Statistics, tally: Tally, after: Statistics) -> str:
    """Why the statistics cannot tell whether this run was counted rightly; "" when they can."""
    if before.count:
        return f"the window was not empty at the start, it held {before.count}"
    oldest_ms = tally.oldest_accepted_ms
    if oldest_ms is not None and not after.surely_counts(oldest_ms):
        return (
            f"the run took {after.age_ms(oldest_ms) / 1000:.1f} s, the window is only "
            f"{after.window_seconds:f} s long: the first rows have left it"
        )
    if tally.lost:
        return f"answers lost: {tally.lost.total()}, and their rows may or may not be counted"
    return ""


def differences_between(
    where: str, expected: Figures, answered: Figures, witness: str = "statistics say"
) -> list[str]:
    """In which figures what was answered is not what was accepted, in words."""
    return [
        f"{where} {name}: accepted {_plain(wanted)}, {witness} {_plain(found)}"
        for name in Figures.__struct_fields__
        if (wanted := getattr(expected, name)) != (found := getattr(answered, name))
    ]


def _plain(number: Decimal | int) -> str:
    return f"{number:f}" if isinstance(number, Decimal) else str(number)
