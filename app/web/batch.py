"""POST /transactions/batch: many at once, a verdict for each, one commit for all."""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope

from app.core.identifier import format_identifier
from app.core.transaction import (
    BATCH_ITEMS_MAX,
    COMMAS_MAX,
    Decoded,
    FieldError,
    Invalid,
    Malformed,
    Row,
    TooDense,
    TooMany,
    Transaction,
    TransactionDecoder,
)
from app.ledger.commit import Verdict
from app.ledger.ledger import Ledger
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
from app.web.ingest import AHEAD_FIELD, Ingest, word_malformed

BATCH_BYTES_MAX: Final = 8 * 2**20

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
_OPTIONS: Final = ("atomic", "ids")
_SWITCHES: Final = {"true": True, "false": False}


class _ItemError(msgspec.Struct, omit_defaults=True):
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

    async def post(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """Answer when all that was accepted is durable and counted."""
        is_atomic, wants_ids = _options(scope["query_string"])
        body = await read_json(scope, receive, BATCH_BYTES_MAX, takes_ndjson=True)
        items = self._decode(body, is_lines=is_ndjson(scope))
        transactions = [item for item in items if isinstance(item, Transaction)]
        verdicts, rows = self._ledger.sort_out(transactions)
        errors, rejected = _errors(items, verdicts)
        if is_atomic and rejected:
            return _refused_whole(errors)
        if rows:
            verdict = await self._submit(rows)
            if verdict is not Verdict.ACCEPTED:
                return self._ingest.word_verdict(verdict)
        result = _Result(len(rows), 0, verdicts.count(Verdict.LATE), rejected, errors)
        if wants_ids:
            result.ids = _ids(items, verdicts, rows)
        return json_answer(HTTPStatus.OK, msgspec.json.encode(result))

    def _decode(self, body: bytes, *, is_lines: bool) -> list[Decoded]:
        try:
            return self._decoder.decode_lines(body) if is_lines else self._decoder.decode_array(body)
        except TooMany:
            raise Problem(_TOO_MANY) from None
        except TooDense:
            raise Problem(_TOO_DENSE) from None
        except Malformed as error:
            raise Problem(word_malformed("The body is not a JSON array", error)) from None

    async def _submit(self, rows: Sequence[Row]) -> Verdict:
        submitted: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

        def done(verdict: Verdict, _: Sequence[Row]) -> None:
            # The server cancels what is still open when a drain takes too long.
            if not submitted.done():
                submitted.set_result(verdict)

        self._ledger.submit_rows(rows, done)
        return await submitted


def _options(query: bytes) -> tuple[bool, bool]:
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


def _errors(items: Sequence[Decoded], verdicts: Sequence[Verdict]) -> tuple[list[_ItemError], int]:
    """What is wrong, field by field in the order of the items, and with how many of them."""
    if len(verdicts) == len(items) and Verdict.AHEAD not in verdicts:
        return [], 0
    errors: list[_ItemError] = []
    rejected = 0
    judged = iter(verdicts)
    for index, item in enumerate(items):
        if isinstance(item, Transaction):
            if next(judged) is Verdict.AHEAD:
                rejected += 1
                code, detail = Code.TIMESTAMP_AHEAD.value, AHEAD_FIELD.detail
                errors.append(_ItemError(index, code, detail, "timestamp"))
        elif isinstance(item, Invalid):
            rejected += 1
            for error in item.errors:
                field = error.pointer.removeprefix("/")
                errors.append(_ItemError(index, Code.INVALID_FIELD.value, error.detail, field))
        else:
            rejected += 1
            errors.append(_ItemError(index, Code.MALFORMED_BODY.value, str(item)))
    return errors, rejected


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


def _ids(items: Sequence[Decoded], verdicts: Sequence[Verdict], rows: Sequence[Row]) -> list[str | None]:
    """The id of each item, None where it was not accepted."""
    judged, accepted = iter(verdicts), iter(rows)
    return [
        format_identifier(next(accepted).id)
        if isinstance(item, Transaction) and next(judged) is Verdict.ACCEPTED
        else None
        for item in items
    ]
