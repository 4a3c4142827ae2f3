"""What is counted: of every currency, and of single users.

A transaction is written once, into its currency's window; the answer lists every currency anyway, so
the overall figures are merged from what was read for it.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from app.core.transaction import Row
from app.core.window import Part, Shape
from app.core.windows import Counted, Windows
from app.ledger.users import NAME_BYTES_MAX, TAG_MASK, Users, pack_entry, short_name


class Freshness(NamedTuple):
    """What is counted here of the transactions that other nodes have taken in."""

    nodes: int
    """How many there are, this one included."""
    complete_ms: int | None
    """All that any of the others had counted by then, by this node's clock, is."""
    is_degraded: bool
    """Whether something may be missing that nobody here knows of."""

    def lag_ms(self, now_ms: int) -> int:
        """How far the others' transactions lie behind."""
        return 0 if self.complete_ms is None else max(now_ms - self.complete_ms, 0)


class Follower(Protocol):
    """Is told of whatever changes what is counted, at once and in order."""

    def restart(self, shape: Shape) -> None:
        """Nothing is counted any more; what is, from here on, is counted in this shape."""

    def add(self, currency: str, parts: Collection[Part]) -> None:
        """These are counted."""

    def note(self, freshness: Freshness) -> None:
        """This is how fresh what was counted is."""


class Statistics:
    """Figures over the newest transactions, as counted so far; those of each user are in `users`."""

    def __init__(self, shape: Shape, users: Users) -> None:
        self.windows = Windows(shape)
        self._users = users
        self.version = 0
        """Another one where the same question may have another answer."""
        self.freshness: Freshness | None = None
        """None where there are no other nodes to be known of."""
        self.follower: Follower | None = None

    def record(self, rows: Sequence[Row]) -> Counted:
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
        counted = {currency: parts.values() for currency, (parts, _) in merged.items()}
        self.add(counted)
        return counted

    def add(self, counted: Counted) -> None:
        """Count what was summed up before, of no single user."""
        self.windows.add(counted)
        self.version += 1
        if self.follower is not None:
            for currency, parts in counted.items():
                self.follower.add(currency, parts)

    def restart(self, shape: Shape) -> None:
        """Count nothing, and from here on in this shape."""
        self.windows.restart(shape)
        self.version += 1
        if self.follower is not None:
            self.follower.restart(shape)

    def note(self, freshness: Freshness) -> None:
        """Note how fresh what was counted is."""
        self.freshness = freshness
        self.version += 1
        if self.follower is not None:
            self.follower.note(freshness)
