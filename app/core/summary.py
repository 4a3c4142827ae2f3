"""Count, sum, minimum and maximum of some amounts: what the window adds up and answers."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from app.core.money import UNITS_MAX, divide_rounding_half_away


class Summary(msgspec.Struct, frozen=True, gc=False):
    """Amounts in units of 10^-8. Two summaries merge in any order to the same summary.

    Of nothing, `min_units` and `max_units` are the neutral elements of their merge, not zero.
    """

    count: int
    sum_units: int
    min_units: int
    max_units: int

    @classmethod
    def of(cls, amount_units: int) -> "Summary":
        """The summary of one amount."""
        return cls(1, amount_units, amount_units, amount_units)

    def merge(self, other: "Summary") -> "Summary":
        """The summary of both."""
        return Summary(
            self.count + other.count,
            self.sum_units + other.sum_units,
            min(self.min_units, other.min_units),
            max(self.max_units, other.max_units),
        )

    @property
    def avg_units(self) -> int:
        """The mean, rounded to a unit, ties away from zero; zero of nothing."""
        return divide_rounding_half_away(self.sum_units, self.count) if self.count else 0


EMPTY: Final = Summary(0, 0, UNITS_MAX, -UNITS_MAX)


class Figures(NamedTuple):
    """The answer to one question: all currencies together, and each that occurs."""

    overall: Summary
    by_currency: dict[str, Summary]

    @classmethod
    def joining(cls, summaries: Iterable[tuple[str, Summary]]) -> "Figures":
        """The figures of these currencies, in their order."""
        overall, by_currency = EMPTY, {}
        for code, summary in summaries:
            if summary.count:
                by_currency[code] = summary
                overall = overall.merge(summary)
        return cls(overall, by_currency)
