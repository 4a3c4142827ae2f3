"""POST /transactions/batch: many at once, a verdict for each, one commit for all."""

import asyncio
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope

from app.core.idempotency import Key, KeyRoute
from app.core.identifier import format_identifier
from app.core.transaction import (
    BATCH_ITEMS_MAX,
    COMMAS_MAX,
    Decoded,
    FieldError,
    Item,
    Malformed,
    TooDense,
    TooMany,
    Transaction,
    TransactionDecoder,
)
from app.ledger.commit import Verdict
from app.ledger.judgement import Judged, Settled
from app.ledger.ledger import Ledger
from app.ledger.reading import Unready
from app.web.answers import (
    Answer,
    Code,
    Problem,
    invalid_parameters,
    json_answer,
    pointer,
    problem,
)
from app.web.body import is_ndjson, read_json
from app.web.guard import Caller
from app.web.idempotency import idempotency_key
from app.web.ingest import AHEAD_FIELD, NOT_READY, Ingest, settle, word_malformed

BATCH_BYTES_MAX: Final = 8 * 2**20

# Batches that are read in turns, at a time: with bodies and errors, some 300 MB at the worst.
_DECODING_MAX: Final = 32
# Some 3 ms, where everything is wrong.
_TURN_ITEMS_MAX: Final = 100

_TOO_MANY: Final = problem(
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Code.TOO_MANY_ITEMS,
    f"The batch has more than {BATCH_ITEMS_MAX} items",
)
_TOO_DENSE: Final = problem(
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Code.TOO_MANY_ITEMS,
    f"An item is wrong, and the batch has too many commas, over {COMMAS_MAX}, to look for it",
)
_WRONG_ITEMS: Final = {
    Verdict.AHEAD: (Code.TIMESTAMP_AHEAD.value, AHEAD_FIELD),
    Verdict.CONFLICT: (
        Code.IDEMPOTENCY_CONFLICT.value,
        FieldError("/idempotency_key", "was used for another item"),
    ),
}
_WRONG: Final = frozenset(_WRONG_ITEMS)
_OPTIONS: Final = ("atomic", "ids")
_SWITCHES: Final = {"true": True, "false": False}


class _ItemError(msgspec.Struct, omit_defaults=True, gc=False):
    index: int
    code: str
    detail: str
    field: str | None = None


class _Result(msgspec.Struct, omit_defaults=True):
    accepted: int
    duplicate: int
    late: int
    rejected: int
    errors: list[_ItemError]
    ids: list[str | None] | msgspec.UnsetType = msgspec.UNSET


class Batch:
    """Takes many transactions in. Bad ones do not sink good ones, unless that was asked for."""

    def __init__(self, decoder: TransactionDecoder, ledger: Ledger, ingest: Ingest) -> None:
        self._decoder = decoder
        self._ledger = ledger
        self._ingest = ingest
        self._turn = asyncio.Lock()
        self._decoding = 0

    async def post(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """Answer when all that was accepted is durable and counted."""
        query = scope["query_string"]
        is_atomic, wants_ids = batch_options(query)
        key = idempotency_key(scope)
        body = await read_json(scope, receive, BATCH_BYTES_MAX, takes_ndjson=True)
        if self._ledger.is_shut:
            # Before it is decoded: that would cost those who are served what it costs to serve them.
            self._ledger.outcomes.refused += 1
            return self._ingest.word_verdict(Verdict.UNREADY)
        items = await self._decode(body, caller.subject, is_lines=is_ndjson(scope))
        transactions = [item for item in items if isinstance(item, Transaction)]
        errors: list[_ItemError] = []

        def word(judged: Judged) -> bytes | None:
            errors.clear()  # It may be judged once more, where another process has taken a key.
            rejected = _judge_items(items, judged.verdicts, errors)
            if is_atomic and rejected:
                return None
            verdicts = judged.verdicts
            duplicate, late = verdicts.count(Verdict.REPEATED), verdicts.count(Verdict.LATE)
            result = _Result(len(judged.rows), duplicate, late, rejected, errors)
            if wants_ids:
                result.ids = _ids(items, judged)
            return msgspec.json.encode(result)

        batch_key = _batch_key(key, caller.subject, query, body)
        item_keys = _item_keys(transactions, caller.subject)
        settled = await settle(
            lambda done: self._ledger.submit_request(transactions, word, done, batch_key, item_keys)
        )
        self._count(settled, len(items))
        if settled.verdict in (Verdict.ACCEPTED, Verdict.REPEATED):
            return json_answer(HTTPStatus.OK, settled.answer)
        if settled.verdict is Verdict.DECLINED:
            return _refused_whole(errors)
        return self._ingest.word_verdict(settled.verdict)

    def _count(self, settled: Settled, items: int) -> None:
        """Count what has become of the items, save those that were kept."""
        outcomes, judged = self._ledger.outcomes, settled.judged
        if settled.verdict is not Verdict.ACCEPTED or judged is None:
            outcomes.note(settled.verdict, items)
            return
        verdicts = judged.verdicts
        outcomes.rejected += items - len(verdicts)
        if len(judged.rows) < len(verdicts):
            for verdict in (Verdict.LATE, Verdict.REPEATED, *_WRONG):
                outcomes.note(verdict, verdicts.count(verdict))

    async def _decode(self, body: bytes, subject: str | None, *, is_lines: bool) -> list[Decoded]:
        decode = self._decoder.decode_lines if is_lines else self._decoder.decode_array
        try:
            items = decode(body, subject)
        except TooMany:
            raise Problem(_TOO_MANY) from None
        except TooDense:
            raise Problem(_TOO_DENSE) from None
        except Malformed as error:
            raise Problem(word_malformed("The body is not a JSON array", error)) from None
        return items if isinstance(items, list) else await self._take_turns(iter(items))

    async def _take_turns(self, items: Iterator[Decoded]) -> list[Decoded]:
        """Read items that take their time, some in each turn of the loop, one batch in each turn.

        An item full of errors takes thirty times as long as one that is right, and the loop belongs to
        everyone.
        """
        if self._decoding >= _DECODING_MAX:
            raise Problem(NOT_READY[Unready.OVERLOADED])
        self._decoding += 1
        try:
            taken: list[Decoded] = []
            while True:
                async with self._turn:
                    await asyncio.sleep(0)
                    some = list(islice(items, _TURN_ITEMS_MAX))
                if not some:
                    return taken
                taken += some
        finally:
            self._decoding -= 1


def _batch_key(text: bytes | None, subject: str | None, query: bytes, body: bytes) -> Key | None:
    if text is None:
        return None
    # Another query asks for another answer.
    return Key.of(KeyRoute.BATCH, subject, text, b"%b\n%b" % (query, body))


def _item_keys(transactions: Sequence[Transaction], subject: str | None) -> Sequence[Key | None]:
    """A key or None for each; nothing where none of them has one."""
    if Item not in set(map(type, transactions)):
        return ()
    return [_item_key(item, subject) if isinstance(item, Item) else None for item in transactions]


def _item_key(item: Item, subject: str | None) -> Key:
    # What an item asks for is what it says, however it is spelled.
    content = msgspec.json.encode((item.amount_units, item.timestamp_ms, item.currency, item.user_id))
    return Key.of(KeyRoute.ITEM, subject, item.idempotency_key.encode(), content)


def batch_options(query: bytes) -> tuple[bool, bool]:
    """What `?atomic=` and `?ids=` say. Raises Problem."""
    options: dict[str, bool] = {}
    errors: list[FieldError] = []
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in _OPTIONS:
            errors.append(FieldError(pointer(name), "is not a parameter of a batch"))
        elif name in options:
            errors.append(FieldError(pointer(name), "must not be given twice"))
        elif value not in _SWITCHES:
            errors.append(FieldError(pointer(name), "must be true or false"))
        else:
            options[name] = _SWITCHES[value]
    if errors:
        raise invalid_parameters(errors)
    return options.get("atomic", False), options.get("ids", False)


def _judge_items(items: Sequence[Decoded], verdicts: Sequence[Verdict], errors: list[_ItemError]) -> int:
    """Add what is wrong, field by field in the order of the items; with how many something is."""
    if len(verdicts) == len(items) and _WRONG.isdisjoint(verdicts):
        return 0
    rejected = 0
    judged = iter(verdicts)
    for index, item in enumerate(items):
        if isinstance(item, Transaction):
            wrong = _WRONG_ITEMS.get(next(judged))
            if wrong is not None:
                rejected += 1
                code, error = wrong
                errors.append(_ItemError(index, code, error.detail, _field(error)))
        elif item.errors:
            rejected += 1
            code = Code.INVALID_FIELD.value
            errors += [_ItemError(index, code, error.detail, _field(error)) for error in item.errors]
        else:
            rejected += 1
            errors.append(_ItemError(index, Code.MALFORMED_BODY.value, item.malformed))
    return rejected


def _field(error: FieldError) -> str:
    return error.pointer.removeprefix("/")


def _refused_whole(errors: Sequence[_ItemError]) -> Answer:
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        Code.INVALID_FIELD,
        "An item is wrong, so nothing of the batch was kept",
        [
            FieldError(
                f"/{error.index}/{error.field}" if error.field else f"/{error.index}", error.detail
            )
            for error in errors
        ],
    )


def _ids(items: Sequence[Decoded], judged: Judged) -> list[str | None]:
    """The id of each item, that of the first for a repeat, None where it was not accepted."""
    found = iter(judged.ids())
    identifiers = [next(found) if isinstance(item, Transaction) else None for item in items]
    return [None if identifier is None else format_identifier(identifier) for identifier in identifiers]
