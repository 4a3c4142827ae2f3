"""What a container platform asks: is it alive, and would it take a transaction."""

from http import HTTPStatus
from typing import Final

from starlette.types import Receive, Scope

from app.ledger.ledger import Ledger
from app.web.answers import Answer, json_answer
from app.web.guard import Caller
from app.web.ingest import NOT_READY

ALIVE: Final = json_answer(HTTPStatus.OK, b'{"status":"ok"}')


class Health:
    """Probes. None of them waits for anything."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def live(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """That this runs is the answer: the event loop turns."""
        return ALIVE

    async def ready(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """200 when a POST would be accepted, else 503 with the reason."""
        reason = self._ledger.why_unready()
        return ALIVE if reason is None else NOT_READY[reason]
