"""The back's end of a front's socket: takes its requests in, keeps answers until they may leave."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, cast

from app.core.transaction import Row
from app.ledger.commit import Verdict
from app.server.link import Answered, Downward, Frames, Question, Word, decode_upward, frame
from app.web.answers import Answer, Problem
from app.web.counts import Tally
from app.web.forward import Backroom
from app.web.guard import ANYONE, Caller, Permission
from app.web.ingest import Ingest, word_accepted
from app.web.resource import internal_error, make_request_id

_NOTHING: Final = frozenset[Permission]()

# Answers that a front has not read: more than this many bytes are no burst, it hangs.
_UNREAD_BYTES_MAX: Final = 64 * 2**20


class Desk(asyncio.Protocol):
    """Serves one front. `hurry` is called when there are answers, which leave when `release` is called.

    `on_word` hears what the front says of itself, `on_rewind` from what time it saw the clock set back,
    `on_lost` that it has gone, and `cut_off` why it must go.
    """

    def __init__(
        self,
        ingest: Ingest,
        backroom: Backroom,
        hurry: Callable[[], None],
        on_word: Callable[[Word], None],
        on_rewind: Callable[[int], None],
        on_lost: Callable[[], None],
        cut_off: Callable[[str], None],
    ) -> None:
        self._ingest = ingest
        self._submit = ingest.submit
        self._backroom = backroom
        self._hurry = hurry
        self._on_word = on_word
        self._on_rewind = on_rewind
        self._on_lost = on_lost
        self._cut_off = cut_off
        self._frames = Frames()
        self._accepted: list[tuple[int, bytes]] = []
        self._answers: list[Answered] = []
        self._has_answers = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None
        self.was_heard = False
        """Whether anything has come since that was last asked."""
        self.tally = Tally()
        """What the front has counted, as last heard."""
        self.has_tally = asyncio.Event()
        """Set when it is heard."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_UNREAD_BYTES_MAX)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget its answers. What it has handed on is done all the same."""
        self._transport = None
        self._on_lost()

    def pause_writing(self) -> None:
        """Wait for it no longer."""
        self._cut_off("it does not read its answers")

    def data_received(self, data: bytes) -> None:
        """Take in what the front hands on."""
        self.was_heard = True
        for payload in self._frames.cut(data):
            upward = decode_upward(payload)
            for post in upward.posts:
                number, subject = post.number, post.subject
                # What they may do was settled at the front.
                caller = ANYONE if subject is None else Caller(subject, _NOTHING)
                try:
                    if post.key is None:
                        self._submit(post.body, caller, partial(self._done, number))
                    else:
                        self._ingest(post.body, caller, post.key, partial(self._answer, number))
                except Problem as refusal:
                    self._answer(number, refusal.answer)
                except Exception:
                    self._ingest.note_error()
                    request_id = make_request_id()
                    self._answer(number, internal_error(request_id), request_id)
            for question in upward.questions:
                task = asyncio.get_running_loop().create_task(self._look_up(question))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            for word in upward.words:
                self._on_word(word)
            if upward.tally is not None:
                self.tally = upward.tally
                self.has_tally.set()
            if upward.rewound_from_ms is not None:
                self._on_rewind(upward.rewound_from_ms)

    def release(self) -> None:
        """Send the answers there are."""
        if self._has_answers:
            self._has_answers = False
            downward = Downward(self._accepted, self._answers)
            self._accepted, self._answers = [], []
            self._send(downward)

    def ping(self) -> None:
        """Have the front say something."""
        self._send(Downward(is_ping=True))

    def close(self) -> None:
        """Serve it no more."""
        if self._transport is not None:
            self._transport.abort()

    def _send(self, downward: Downward) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(downward))

    async def _look_up(self, question: Question) -> None:
        self._answer(question.number, await self._backroom.answer(question.asked))

    def _done(self, number: int, verdict: Verdict, rows: Sequence[Row]) -> None:
        if verdict is Verdict.ACCEPTED:
            self._accepted.append((number, word_accepted(rows[0].id)))
            if not self._has_answers:
                self._has_answers = True
                self._hurry()
        else:
            self._answer(number, self._ingest.word_unusual(verdict, rows))

    def _answer(self, number: int, answer: Answer, request_id: bytes | None = None) -> None:
        told = Answered(number, answer.status, answer.headers, answer.body, request_id)
        self._answers.append(told)
        if not self._has_answers:
            self._has_answers = True
            self._hurry()
