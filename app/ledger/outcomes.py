"""What has become of every transaction that arrived, as numbers that only grow.

What is kept is counted where that is known, once for a whole commit; all else by whoever words the
answer to it. So each transaction is counted once, and to count those that are accepted costs nothing.
"""

from typing import Final

import msgspec

from app.ledger.commit import Verdict


class Outcomes(msgspec.Struct, array_like=True):
    """Transactions by what became of them. Each process has its own, and is its one writer."""

    accepted: int = 0
    """Durable, whether or not they are counted in the statistics."""
    late: int = 0
    """Older than the window, and not kept."""
    rejected: int = 0
    """The caller's fault."""
    duplicate: int = 0
    """Repeats of what was accepted under the same key."""
    refused: int = 0
    """Not taken, and not by the caller's fault: the same may be accepted later."""

    def note(self, verdict: Verdict, transactions: int = 1) -> None:
        """Count some of the same fate; those that were kept are counted already."""
        name = _NAMES.get(verdict)
        if name is not None:
            setattr(self, name, getattr(self, name) + transactions)

    def add(self, other: "Outcomes") -> None:
        """Count what another process has counted as well."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_NAMES: Final = {
    Verdict.REPEATED: "duplicate",
    Verdict.LATE: "late",
    Verdict.AHEAD: "rejected",
    Verdict.CONFLICT: "rejected",
    Verdict.DECLINED: "rejected",
    Verdict.UNREADY: "refused",
    Verdict.REFUSED: "refused",
    Verdict.FAILED: "refused",
}
