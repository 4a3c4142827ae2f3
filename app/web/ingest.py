"""Bytes in, answer out: how a transaction enters, whichever lane brought it."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Final

from app.core.idempotency import Key, KeyRoute
from app.core.identifier import format_identifier
from app.core.transaction import FieldError, Invalid, Malformed, Row, TransactionDecoder
from app.ledger.commit import Done, Verdict
from app.ledger.judgement import Judged, Settled
from app.ledger.ledger import Ledger
from app.ledger.reading import Unready
from app.web.answers import Answer, Code, Problem, json_answer, make_answer, problem, unavailable
from app.web.guard import Caller
from app.web.idempotency import CONFLICT

Reply = Callable[[Answer], None]
TakeIn = Callable[[bytes, Caller, bytes | None, Reply], None]
"""Takes in one transaction: its bytes, who sent it, its key; replies once, now or when it is durable."""

# What every answer of 201 shares: an id is always of one length.
ACCEPTED: Final = json_answer(HTTPStatus.CREATED, b'{"id":"%s"}' % (b"-" * 36))
_LATE: Final = make_answer(HTTPStatus.NO_CONTENT)
AHEAD_FIELD: Final = FieldError("/timestamp", "must not lie ahead of the server's clock")
_AHEAD: Final = problem(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.TIMESTAMP_AHEAD,
    "The timestamp lies too far ahead of the server's clock",
    (AHEAD_FIELD,),
)
_STORE_REFUSED: Final = unavailable(
    Code.STORE_REFUSED, "The store takes nothing now; nothing of this request was kept"
)
_STORE_FAILED: Final = unavailable(
    Code.STORE_FAILED, "The store has failed; whether this request was kept is not known"
)
_NOT_ACCEPTED: Final = {
    Verdict.LATE: _LATE,
    Verdict.AHEAD: _AHEAD,
    Verdict.CONFLICT: CONFLICT,
    Verdict.REFUSED: _STORE_REFUSED,
    Verdict.FAILED: _STORE_FAILED,
}
NOT_READY: Final = {
    reason: unavailable(Code.NOT_READY, f"Not ready: {reason.value}") for reason in Unready
}


class Ingest:
    """Decodes a transaction, submits it, and words the ledger's verdict."""

    def __init__(self, decoder: TransactionDecoder, ledger: Ledger) -> None:
        self._decode = decoder.decode
        self._ledger = ledger
        self._outcomes = ledger.outcomes

    def __call__(self, body: bytes, caller: Caller, key: bytes | None, reply: Reply) -> None:
        """Take in one transaction; `reply` is called once, now or when it is durable."""
        try:
            transaction = self._decode(body, caller.subject)
        except (Malformed, Invalid) as error:
            self._outcomes.rejected += 1
            reply(word_refusal(error))
            return
        if key is None:
            self._ledger.submit(transaction, partial(self._done, reply))
        else:
            known_by = Key.of(KeyRoute.TRANSACTION, caller.subject, key, body)
            done = partial(self._settled, reply)
            self._ledger.submit_request((transaction,), _word_stored, done, known_by)

    def submit(self, body: bytes, caller: Caller, done: Done) -> None:
        """Take in one transaction without a key; `done` is the ledger's. Raises Problem."""
        try:
            transaction = self._decode(body, caller.subject)
        except (Malformed, Invalid) as error:
            self._outcomes.rejected += 1
            raise Problem(word_refusal(error)) from None
        self._ledger.submit(transaction, done)

    def note_error(self) -> None:
        """Count one that could not be handled, for no reason of its caller's."""
        self._outcomes.refused += 1

    def _done(self, reply: Reply, verdict: Verdict, rows: Sequence[Row]) -> None:
        if verdict is Verdict.ACCEPTED:
            body = word_accepted(rows[0].id)
            reply(Answer(ACCEPTED.status, ACCEPTED.headers, body, ACCEPTED.head))
        else:
            reply(self.word_unusual(verdict, rows))

    def word_unusual(self, verdict: Verdict, rows: Sequence[Row]) -> Answer:
        """The answer to a transaction without a key that was not just accepted."""
        self._outcomes.note(verdict)
        if verdict is Verdict.KEPT:
            return _created(_word_kept(rows[0].id))
        return self.word_verdict(verdict)

    def _settled(self, reply: Reply, settled: Settled) -> None:
        reply(self.word_settled(settled))

    def word_settled(self, settled: Settled) -> Answer:
        """The answer to a request of one transaction."""
        verdict = settled.verdict
        if verdict is Verdict.DECLINED and settled.judged is not None:
            verdict = settled.judged.verdicts[0]
        self._outcomes.note(verdict)
        if verdict in (Verdict.ACCEPTED, Verdict.REPEATED):
            return _created(settled.answer)
        return self.word_verdict(verdict)

    def word_verdict(self, verdict: Verdict) -> Answer:
        """The answer to a transaction that was not accepted."""
        if verdict is Verdict.UNREADY:
            return NOT_READY[self._ledger.why_unready() or Unready.OVERLOADED]
        return _NOT_ACCEPTED[verdict]


async def settle(submit: Callable[[Callable[[Settled], None]], None]) -> Settled:
    """What becomes of a request that `submit` submits; it is handed what is to be done in the end."""
    settled: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()

    def done(what: Settled) -> None:
        # The server cancels what is still open when a drain takes too long.
        if not settled.done():
            settled.set_result(what)

    submit(done)
    return await settled


def _word_stored(judged: Judged) -> bytes | None:
    """The body of the answer to one transaction, where it is to be stored."""
    match judged.verdicts[0]:
        case Verdict.ACCEPTED:
            return word_accepted(judged.rows[0].id)
        case Verdict.KEPT:
            return _word_kept(judged.rows[0].id)
    return None


def word_accepted(identifier: int) -> bytes:
    """The body of the answer to a transaction that was accepted."""
    return b'{"id":"%b"}' % format_identifier(identifier).encode()


def _word_kept(identifier: int) -> bytes:
    return b'{"id":"%b","counted":false}' % format_identifier(identifier).encode()


def _created(body: bytes) -> Answer:
    return json_answer(HTTPStatus.CREATED, body)


def word_refusal(error: Malformed | Invalid) -> Answer:
    """The answer to bytes that are no transaction."""
    if isinstance(error, Invalid):
        return problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            Code.INVALID_FIELD,
            "A field is missing or wrong",
            error.errors,
        )
    return word_malformed("The body is not a JSON object", error)


def word_malformed(what: str, error: Malformed) -> Answer:
    """The answer to bytes that are not what they should be at all."""
    return problem(HTTPStatus.BAD_REQUEST, Code.MALFORMED_BODY, f"{what}: {error}")
