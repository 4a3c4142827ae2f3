"""The plain lane of /transactions."""

import asyncio
from http import HTTPStatus
from typing import Final

from starlette.types import Receive, Scope

from app.ledger.ledger import Ledger, NotReady
from app.store.base import StoreFailed, StoreRefused
from app.web.answers import Answer, Problem
from app.web.body import read_json_body
from app.web.ingest import NOT_READY, STORE_FAILED, STORE_REFUSED, Ingest

_CLEARED: Final = Answer(HTTPStatus.NO_CONTENT, ())


class Transactions:
    """POST takes one transaction in; DELETE clears them all."""

    def __init__(self, ingest: Ingest, ledger: Ledger) -> None:
        self._ingest = ingest
        self._ledger = ledger

    async def post(self, scope: Scope, receive: Receive) -> Answer:
        """Answer when the transaction is durable and counted, or was refused."""
        body = await read_json_body(scope, receive)
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def reply(answer: Answer) -> None:
            # The server cancels what is still open when a drain takes too long.
            if not answered.done():
                answered.set_result(answer)

        self._ingest(body, reply)
        return await answered

    async def delete(self, scope: Scope, receive: Receive) -> Answer:
        """Answer when the deletion is durable."""
        try:
            await self._ledger.clear()
        except NotReady as error:
            raise Problem(NOT_READY[error.reason]) from error
        except StoreRefused as error:
            raise Problem(STORE_REFUSED) from error
        except StoreFailed as error:
            raise Problem(STORE_FAILED) from error
        return _CLEARED
