"""A front's end of its socket: hands requests on, as many at once as some turns of the loop bring."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, cast

import structlog

from app.ledger.reading import Unready
from app.server.link import (
    Answered,
    Frames,
    Post,
    Question,
    Upward,
    Word,
    decode_downward,
    frame,
)
from app.web.answers import Answer, make_answer
from app.web.counts import Counts
from app.web.forward import BRINGING, Asked
from app.web.guard import Caller
from app.web.ingest import ACCEPTED, NOT_READY, Reply
from app.web.slots import Slot

# Four batches of the largest kind. What would have to wait behind more than that is refused.
_UNSENT_BYTES_MAX: Final = 32 * 2**20
# Requests gather for so many turns more, some 20 µs, or until there are so many: what comes together is
# committed together, and a message costs either end more than a turn.
_TURNS_MAX: Final = 3
_POSTS_MAX: Final = 32
_FULL: Final = NOT_READY[Unready.OVERLOADED]

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class BackOffice(asyncio.Protocol):
    """Where the ledger is, as a front sees it. `on_lost` is called when it has gone.

    It is told what is in `counts` when it asks for a sign of life.
    """

    def __init__(self, on_lost: Callable[[], None], counts: Counts) -> None:
        self._counts = counts
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._number = 0
        self._awaited: dict[int, Reply] = {}
        self._posts: list[Post] = []
        self._questions: list[Question] = []
        self._words: list[Word] = []
        self._rewound_from_ms: int | None = None
        self._is_due = False
        self._turns = 0
        """For how many turns of the loop requests have gathered."""
        self._is_full = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_UNSENT_BYTES_MAX)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing can be answered any more."""
        self._on_lost()

    def close(self) -> None:
        """Ask nothing more."""
        self._on_lost = lambda: None
        self._transport.close()

    def pause_writing(self) -> None:
        """Refuse, until it has taken some."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Go on."""
        self._is_full = False

    def take_in(self, body: bytes, caller: Caller, key: bytes | None, reply: Reply) -> None:
        """Take in one transaction; `reply` is called once, now or when it is durable."""
        if self._is_full:
            self._counts.refuse_transaction(_FULL.status)
            reply(_FULL)
            return
        self._number = number = self._number + 1
        self._awaited[number] = reply
        self._posts.append(Post(number, body, caller.subject, key))
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._flush)

    def ask(self, asked: Asked, reply: Reply) -> None:
        """Have a request answered; `reply` is called once."""
        if self._is_full:
            if asked.door in BRINGING:
                self._counts.refuse_transaction(_FULL.status)
            reply(_FULL)
            return
        self._number = number = self._number + 1
        self._awaited[number] = reply
        self._questions.append(Question(number, asked))
        self._hurry()

    def say(self, word: Word) -> None:
        """Say something of this front."""
        if word not in self._words:
            self._words.append(word)
            self._hurry()

    def note_rewind(self, latest_ms: int) -> None:
        """Say that the clock was set back from this time, and the window must be read back."""
        self._rewound_from_ms = latest_ms
        self._hurry()

    def data_received(self, data: bytes) -> None:
        """Pass answers on to whom they are for."""
        awaited, status, headers, head = self._awaited, ACCEPTED.status, ACCEPTED.headers, ACCEPTED.head
        for payload in self._frames.cut(data):
            downward = decode_downward(payload)
            for number, body in downward.accepted:
                try:
                    awaited.pop(number)(Answer(status, headers, body, head))
                except Exception:
                    # One caller's trouble must not cost the others their answer.
                    log.exception("answer_failed")
            for answered in downward.answers:
                self._pass_on(answered)
            if downward.is_ping:
                self.say(Word.ALIVE)

    def _pass_on(self, answered: Answered) -> None:
        reply = self._awaited.pop(answered.number)
        if answered.request_id is not None and isinstance(reply, Slot):
            reply.request_id = reply.request_id or answered.request_id
        try:
            reply(make_answer(HTTPStatus(answered.status), answered.headers, answered.body))
        except Exception:
            log.exception("answer_failed")

    def _hurry(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._turns < _TURNS_MAX and len(self._posts) < _POSTS_MAX:
            self._turns += 1
            self._loop.call_soon(self._flush)
            return
        self._is_due, self._turns = False, 0
        tally = self._counts.tally() if Word.ALIVE in self._words else None
        upward = Upward(self._posts, self._questions, self._words, self._rewound_from_ms, tally)
        self._posts, self._questions, self._words, self._rewound_from_ms = [], [], [], None
        if not self._transport.is_closing():
            self._transport.write(frame(upward))
