"""What becomes of transactions that come together, and of those that say how to know them again.

A key is looked up before anything is judged: a retry that has become too old in the meantime is still
a retry. Nothing is remembered of what was not accepted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from app.core.idempotency import Key, Record
from app.core.transaction import Row, Transaction
from app.ledger.commit import Verdict


class Bounds(NamedTuple):
    """Between which times a transaction is taken, both included, by one reading of the clock."""

    now_ms: int
    from_ms: int
    to_ms: int
    late: Verdict
    """What becomes of one that is older: LATE, or KEPT."""

    def verdict(self, timestamp_ms: int) -> Verdict:
        """What becomes of a transaction of that time."""
        if timestamp_ms < self.from_ms:
            return self.late
        return Verdict.AHEAD if timestamp_ms > self.to_ms else Verdict.ACCEPTED


IS_STORED = frozenset((Verdict.ACCEPTED, Verdict.KEPT))


class Judged(msgspec.Struct, frozen=True):
    """A verdict for each transaction, and what is to be kept of them."""

    verdicts: list[Verdict]
    rows: list[Row]
    """Of those that are to be stored, in their order."""
    records: Sequence[Record] = ()
    earlier: Mapping[int, int] = {}
    """The ids of those that are repeats, by their place."""

    def ids(self) -> list[int | None]:
        """The id of each, None where it has none."""
        rows = iter(self.rows)
        return [
            next(rows).id if verdict in IS_STORED else self.earlier.get(place)
            for place, verdict in enumerate(self.verdicts)
        ]


def judge(transactions: Sequence[Transaction], bounds: Bounds, identifiers: Sequence[int]) -> Judged:
    """Judge transactions that carry no key. There are ids enough; the first are used."""
    times_ms = [transaction.timestamp_ms for transaction in transactions]
    if times_ms and bounds.from_ms <= min(times_ms) and max(times_ms) <= bounds.to_ms:
        verdicts = [Verdict.ACCEPTED] * len(times_ms)
    else:
        verdicts = list(map(bounds.verdict, times_ms))
        judged = zip(transactions, verdicts, strict=True)
        transactions = [item for item, verdict in judged if verdict in IS_STORED]
    return Judged(verdicts, list(map(Row, identifiers, transactions)))


def judge_keyed(
    transactions: Sequence[Transaction],
    keys: Sequence[Key | None],
    known: Mapping[bytes, Record],
    bounds: Bounds,
    identifiers: Sequence[int],
) -> Judged:
    """Judge transactions of which some carry a key; a key may also come twice among them."""
    verdicts: list[Verdict] = []
    rows: list[Row] = []
    records: dict[bytes, Record] = {}
    earlier: dict[int, int] = {}
    for place, (transaction, key) in enumerate(zip(transactions, keys, strict=True)):
        record = None if key is None else known.get(key.digest) or records.get(key.digest)
        if record is None:
            verdict = bounds.verdict(transaction.timestamp_ms)
            if verdict in IS_STORED:
                row = Row(identifiers[len(rows)], transaction)
                rows.append(row)
                if key is not None:
                    records[key.digest] = Record.of(key, row.id.to_bytes(16), bounds.now_ms)
        elif record.key == key:
            verdict = Verdict.REPEATED
            earlier[place] = int.from_bytes(record.answer)
        else:
            verdict = Verdict.CONFLICT
        verdicts.append(verdict)
    return Judged(verdicts, rows, list(records.values()), earlier)


class Settled(msgspec.Struct, frozen=True):
    """What has become of a request.

    ACCEPTED: of its transactions, what `judged` says, with that answer. REPEATED: nothing, and the
    answer is the first one. Any other: nothing of it was kept.
    """

    verdict: Verdict
    answer: bytes = b""
    judged: Judged | None = None


class Request:
    """Transactions that came together, on their way through the commit.

    `word` makes the answer of what was judged, to be given now and, where the request has a key, again;
    None where nothing of it is to be kept after all.
    """

    def __init__(
        self,
        transactions: Sequence[Transaction],
        bounds: Bounds,
        identifiers: Sequence[int],
        word: Callable[[Judged], bytes | None],
        done: Callable[[Settled], None],
        key: Key | None = None,
        item_keys: Sequence[Key | None] = (),
    ) -> None:
        self._transactions = transactions
        self._bounds = bounds
        self._identifiers = identifiers
        self._word = word
        self._done = done
        self._key = key
        self._item_keys = item_keys
        self._settled = Settled(Verdict.REFUSED)
        self.weight = max(len(transactions), 1)
        self.digests: Sequence[bytes] = [each.digest for each in (key, *item_keys) if each is not None]

    def settle(self, known: Mapping[bytes, Record]) -> tuple[Sequence[Row], Sequence[Record]]:
        """Judge, given what its keys stand for; the rows and records to keep."""
        key = self._key
        record = known.get(key.digest) if key else None
        if record is not None:
            is_same = record.key == key
            self._settled = (
                Settled(Verdict.REPEATED, record.answer) if is_same else Settled(Verdict.CONFLICT)
            )
            return (), ()
        judged = self._judge(known)
        answer = self._word(judged)
        if answer is None:
            self._settled = Settled(Verdict.DECLINED, judged=judged)
            return (), ()
        self._settled = Settled(Verdict.ACCEPTED, answer, judged)
        if key is None or not (judged.rows or judged.earlier):
            return judged.rows, judged.records
        return judged.rows, [*judged.records, Record.of(key, answer, self._bounds.now_ms)]

    def done(self, verdict: Verdict, rows: Sequence[Row] = ()) -> None:
        """Say what has become of it; nothing of it was kept unless the verdict is ACCEPTED."""
        self._done(self._settled if verdict is Verdict.ACCEPTED else Settled(verdict))

    def _judge(self, known: Mapping[bytes, Record]) -> Judged:
        if self._item_keys:
            return judge_keyed(
                self._transactions, self._item_keys, known, self._bounds, self._identifiers
            )
        return judge(self._transactions, self._bounds, self._identifiers)
