"""The plain lane of /transactions."""

import asyncio
from http import HTTPStatus
from typing import Final

from starlette.types import Receive, Scope

from app.ledger.commit import Verdict
from app.ledger.ledger import Ledger
from app.web.answers import Answer, make_answer
from app.web.body import check_length, read_body, read_json
from app.web.guard import Caller
from app.web.idempotency import idempotency_key
from app.web.ingest import Ingest

_CLEARED: Final = make_answer(HTTPStatus.NO_CONTENT)


class Transactions:
    """POST takes one transaction in; DELETE clears them all."""

    def __init__(self, ingest: Ingest, ledger: Ledger) -> None:
        self._ingest = ingest
        self._ledger = ledger

    async def post(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """Answer when the transaction is durable and counted, or was refused."""
        key = idempotency_key(scope)
        body = await read_json(scope, receive)
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def reply(answer: Answer) -> None:
            # The server cancels what is still open when a drain takes too long.
            if not answered.done():
                answered.set_result(answer)

        self._ingest(body, caller, key, reply)
        return await answered

    async def delete(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """Answer when the deletion is durable."""
        # A request that turns out to be broken must not have deleted anything.
        check_length(scope)
        await read_body(receive)
        verdict = await self._ledger.clear()
        return _CLEARED if verdict is Verdict.ACCEPTED else self._ingest.word_verdict(verdict)
