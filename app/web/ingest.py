"""Bytes in, answer out: how a transaction enters, whichever lane brought it."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from app.core.identifier import format_identifier
from app.core.transaction import FieldError, Invalid, Malformed, TransactionDecoder
from app.ledger.ledger import Ledger, Unready, Verdict
from app.web.answers import Answer, Code, problem, unavailable

Reply = Callable[[Answer], None]

_ACCEPTED_HEADERS: Final = ((b"content-type", b"application/json"), (b"content-length", b"45"))

_LATE: Final = Answer(HTTPStatus.NO_CONTENT, ())
_AHEAD: Final = problem(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.TIMESTAMP_AHEAD,
    "The timestamp lies too far ahead of the server's clock",
    (FieldError("/timestamp", "must not lie ahead of the server's clock"),),
)
STORE_REFUSED: Final = unavailable(
    Code.STORE_REFUSED, "The store has no room; nothing of this request was kept"
)
STORE_FAILED: Final = unavailable(
    Code.STORE_FAILED, "The store has failed; whether this request was kept is not known"
)
NOT_READY: Final = {
    reason: unavailable(Code.NOT_READY, f"Not ready: {reason.value}") for reason in Unready
}


class Ingest:
    """Decodes a transaction, submits it, and words the ledger's verdict."""

    def __init__(self, decoder: TransactionDecoder, ledger: Ledger) -> None:
        self._decode = decoder.decode
        self._ledger = ledger

    def __call__(self, body: bytes, reply: Reply) -> None:
        """Take in one transaction; `reply` is called once, now or when it is durable."""
        try:
            transaction = self._decode(body)
        except Malformed as error:
            detail = f"The body is not a JSON object: {error}"
            reply(problem(HTTPStatus.BAD_REQUEST, Code.MALFORMED_BODY, detail))
            return
        except Invalid as error:
            detail = "A field is missing or wrong"
            reply(problem(HTTPStatus.UNPROCESSABLE_ENTITY, Code.INVALID_FIELD, detail, error.errors))
            return
        self._ledger.submit(transaction, lambda verdict, id_: reply(self._answer(verdict, id_)))

    def _answer(self, verdict: Verdict, identifier: bytes) -> Answer:
        if verdict is Verdict.ACCEPTED:
            body = f'{{"id":"{format_identifier(identifier)}"}}'
            return Answer(HTTPStatus.CREATED, _ACCEPTED_HEADERS, body.encode())
        if verdict is Verdict.LATE:
            return _LATE
        if verdict is Verdict.AHEAD:
            return _AHEAD
        if verdict is Verdict.REFUSED:
            return STORE_REFUSED
        if verdict is Verdict.FAILED:
            return STORE_FAILED
        return NOT_READY[self._ledger.why_unready() or Unready.OVERLOADED]
