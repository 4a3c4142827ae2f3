"""History: what was kept, for whoever may see it.

Each sees their own; what is another's is as if it were not there. Reading stands in no queue of the
commit's, and takes nothing from it.
"""

import asyncio
from typing import Final

import msgspec
import structlog

from app.core.question import Page, Portion, Question
from app.core.transaction import Row
from app.ledger.commit import Verdict
from app.store.base import Store, StoreFailed, StoreRefused

# Questions that are looked up at a time: each may have the store read all there is.
_LOOKING_MAX: Final = 4
# So many wait for that at most, and for so long: by then hardly anyone still waits for the answer, and
# a burst of slow questions would hold the feed for minutes after those who asked them have gone.
_WAITING_MAX: Final = 256
_WAITING_SECONDS_MAX: Final = 5.0

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Viewer(msgspec.Struct, frozen=True):
    """Who wants to see something. Without a subject there is one viewer, who sees all."""

    subject: str | None
    sees_all: bool

    def sees(self, user_id: str | None) -> bool:
        """Whether they may see what is that user's."""
        return self.sees_all or user_id == self.subject


class NotTheirs(Exception):
    """The question is about a user whose transactions the viewer does not see."""


class Unreadable(Exception):
    """The question cannot be answered now: UNREADY, REFUSED or FAILED says why."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.value)
        self.verdict = verdict


class History:
    """Answers from the store what a viewer may see."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._looking = asyncio.Semaphore(_LOOKING_MAX)
        self._waiting = 0

    def narrow(self, viewer: Viewer, question: Question) -> Question:
        """The question as it is to be answered: about the viewer, where it names no user.

        Raises NotTheirs.
        """
        if question.user_id is None and viewer.subject is not None:
            return msgspec.structs.replace(question, user_id=viewer.subject)
        if not viewer.sees(question.user_id):
            raise NotTheirs
        return question

    async def get(self, viewer: Viewer, identifier: int) -> Row | None:
        """The row of that id, where there is one that the viewer sees. Raises Unreadable."""
        try:
            row = await self._store.get(identifier)
        except (StoreRefused, StoreFailed) as error:
            raise _unreadable(error) from error
        return row if row is not None and viewer.sees(row.transaction.user_id) else None

    async def find(self, viewer: Viewer, question: Question, portion: Portion) -> Page:
        """A part of what a narrowed question finds. Raises NotTheirs and Unreadable."""
        question = self.narrow(viewer, question)
        if self._waiting >= _WAITING_MAX:
            raise Unreadable(Verdict.UNREADY)
        self._waiting += 1
        try:
            async with asyncio.timeout(_WAITING_SECONDS_MAX):
                await self._looking.acquire()
            try:
                return await self._store.page(question, portion)
            finally:
                self._looking.release()
        except TimeoutError:
            raise Unreadable(Verdict.UNREADY) from None
        except (StoreRefused, StoreFailed) as error:
            raise _unreadable(error) from error
        finally:
            self._waiting -= 1


def _unreadable(error: StoreRefused | StoreFailed) -> Unreadable:
    log.warning("history_unreadable", reason=str(error))
    return Unreadable(Verdict.REFUSED if isinstance(error, StoreRefused) else Verdict.FAILED)
