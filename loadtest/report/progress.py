"""A bar that says what is being measured, and how much of it is left."""

from typing import Final

from tqdm import tqdm

from loadtest.report.plan import LOADS_PERCENT, Plan

# About a second's work, as a unit of the bar.
_ROWS_PER_UNIT: Final = 200_000
_ROWS_PER_UNIT_SINGLY: Final = 5000
_BARE_ROWS_PER_UNIT: Final = 500_000


class Progress:
    """One bar over the whole measurement, in units of about a second."""

    def __init__(self, plan: Plan, batched: bool) -> None:
        self._rows_per_unit = _ROWS_PER_UNIT if batched else _ROWS_PER_UNIT_SINGLY
        numbers = plan.in_window(batched)
        fills = plan.rounds * sum(numbers) / self._rows_per_unit
        bare = plan.bare_rounds * (10**plan.decades / _BARE_ROWS_PER_UNIT + plan.decades)
        # For each store and round: the closed loop, every load, and the reads beside one.
        runs = plan.write_rounds * 2 * (2 + len(LOADS_PERCENT))
        total = plan.rounds * len(numbers) * 2 + fills + bare + runs * plan.write_seconds
        self._bar = tqdm(total=round(total), unit=" s", disable=None, bar_format=_FORMAT)

    def stage(self, what: str) -> None:
        """Say what is being measured now."""
        self._bar.set_description_str(what)

    def advance(self, units: float = 2) -> None:
        """So much is done."""
        self._bar.update(min(units, self._bar.total - self._bar.n))

    def advance_rows(self, rows: int) -> None:
        """So many transactions were filled in."""
        self.advance(rows / self._rows_per_unit)

    def advance_bare_rows(self, rows: int) -> None:
        """So many amounts were put into the bare structures."""
        self.advance(rows / _BARE_ROWS_PER_UNIT)

    def close(self) -> None:
        """Fill the bar."""
        self._bar.update(self._bar.total - self._bar.n)
        self._bar.close()


_FORMAT: Final = "{percentage:3.0f} % |{bar:24}| {elapsed} gone, {remaining} to go  {desc}"
