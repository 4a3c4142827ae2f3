"""A window for each currency, merged where a question spans them, and what single users have in it.

A transaction is written once, into its currency's window; the answer lists every currency anyway, so
the overall figures are merged from what was read for it.
"""

from collections.abc import Sequence

from app.core.summary import Figures
from app.core.transaction import Row
from app.core.window import Shape, Window
from app.ledger.users import NAME_BYTES_MAX, TAG_MASK, Users, pack_entry, short_name
from app.store.base import Tally


class Statistics:
    """Figures over the newest transactions, as counted so far; those of each user are in `users`."""

    def __init__(self, shape: Shape, users: Users) -> None:
        self.shape = shape
        self._users = users
        self._windows: dict[str, Window] = {}

    def record(self, rows: Sequence[Row]) -> None:
        """Count rows; those that the ring has moved past are in no window any more."""
        # Rows that come together mostly happened together: merged by millisecond they touch the
        # window once. Entries for the users' journal are made here too, as a second pass over the rows
        # would cost half as much again.
        merged: dict[str, tuple[dict[int, list[int]], int]] = {}
        users, pack = self._users, pack_entry
        entries: list[bytes] = []
        # Where none are held, nothing is new enough for them.
        oldest_ms, tag_mask, name_bytes_max = users.oldest_ms, TAG_MASK, NAME_BYTES_MAX
        for row in rows:
            fact = row.transaction
            timestamp_ms, amount_units = fact.timestamp_ms, fact.amount_units
            found = merged.get(fact.currency)
            if found is None:
                found = merged[fact.currency] = {}, users.number(fact.currency)
            parts, number = found
            part = parts.get(timestamp_ms)
            if part is None:
                parts[timestamp_ms] = [timestamp_ms, 1, amount_units, amount_units, amount_units]
            else:
                part[1] += 1
                part[2] += amount_units
                if amount_units < part[3]:
                    part[3] = amount_units
                if amount_units > part[4]:
                    part[4] = amount_units
            user_id = fact.user_id
            if user_id is not None and timestamp_ms >= oldest_ms:
                name = user_id.encode()
                if len(name) > name_bytes_max:
                    name = short_name(name)
                entries.append(pack(timestamp_ms, amount_units, number, hash(user_id) & tag_mask, name))
        if entries:
            users.append(entries, max(max(parts) for parts, _ in merged.values()))
        for currency, (parts, _) in merged.items():
            self._window(currency).add(parts.values())

    def absorb(self, tally: Tally) -> None:
        """Count transactions that were summed up before."""
        self._window(tally.currency).absorb(tally.slot_ms, tally.summary)

    def clear(self) -> None:
        """Count nothing."""
        self._windows.clear()

    def since(self, from_ms: int, currency: str | None = None) -> Figures:
        """The figures over every transaction whose time is `from_ms` or later."""
        if currency is None:
            windows = self._windows
        else:
            window = self._windows.get(currency)
            windows = {} if window is None else {currency: window}
        return Figures.joining((code, windows[code].since(from_ms)) for code in sorted(windows))

    def _window(self, currency: str) -> Window:
        window = self._windows.get(currency)
        if window is None:
            window = self._windows[currency] = Window(self.shape)
        return window
