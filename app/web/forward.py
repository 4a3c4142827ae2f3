"""A process that has connections and no ledger: what it cannot answer itself it asks one that can.

Who is asking, how much and how fast is settled where the connection is; the bytes of a request go on as
they came, and the very handlers that serve a single process answer them. So both houses answer alike.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Protocol

import msgspec
from starlette.types import Message, Receive, Scope

from app.web.answers import Answer, Problem, Relayed
from app.web.batch import BATCH_BYTES_MAX, batch_options
from app.web.body import check_length, read_body, read_json
from app.web.counts import Counts
from app.web.guard import Caller, Permission
from app.web.health import live
from app.web.idempotency import HEADER, idempotency_key
from app.web.ingest import Reply
from app.web.resource import CUT_SHORT, Handler, internal_error, make_request_id, sane_request_id
from app.web.routes import Handlers
from app.web.stats import Stats
from app.web.trace import trace_of

# What a handler looks at beside the query.
_HEADERS: Final = frozenset(
    (HEADER, b"accept", b"content-type", b"content-length", b"content-encoding", b"transfer-encoding")
)


class Door(Enum):
    """The handlers that need the ledger."""

    POST_TRANSACTION = 1
    DELETE_TRANSACTIONS = 2
    POST_BATCH = 3
    POST_TO_FEED = 4
    FIND = 5
    FIND_OF_USER = 6
    GET_TRANSACTION = 7
    GET_STATS = 8
    READY = 9
    REPORT = 10
    METRICS = 11


BRINGING: Final = frozenset((Door.POST_TRANSACTION, Door.POST_BATCH, Door.POST_TO_FEED))
"""Those that bring transactions."""


class Asked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A request as it is handed on."""

    door: Door
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    path_params: dict[str, str]
    subject: str | None
    permissions: tuple[Permission, ...]
    body: bytes
    request_id: bytes
    trace_id: bytes | None


class Office(Protocol):
    """Where the ledger is."""

    def take_in(self, body: bytes, caller: Caller, key: bytes | None, reply: Reply) -> None:
        """Take in one transaction; `reply` is called once, now or when it is durable."""

    def ask(self, asked: Asked, reply: Reply) -> None:
        """Have a request answered; `reply` is called once."""


class Forward:
    """Hands requests on, each read within the bounds of its door."""

    def __init__(self, office: Office) -> None:
        self._office = office

    def handlers(self, stats: Stats) -> Handlers:
        """What answers behind the doors here."""
        return Handlers(
            post_transaction=self._post_transaction,
            delete_transactions=self._delete,
            post_batch=self._post_batch,
            post_to_feed=self._post_to_feed,
            find=self._unread(Door.FIND),
            find_of_user=self._unread(Door.FIND_OF_USER),
            get_transaction=self._unread(Door.GET_TRANSACTION),
            get_stats=stats.get,
            live=live,
            ready=self._unread(Door.READY),
            report=self._unread(Door.REPORT),
            metrics=self._unread(Door.METRICS),
        )

    async def get_stats(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        """The figures of one user."""
        return await self._ask(Door.GET_STATS, scope, caller)

    def _unread(self, door: Door) -> Handler:
        """A handler of requests whose bodies nobody looks at."""

        async def handle(scope: Scope, receive: Receive, caller: Caller) -> Answer:
            return await self._ask(door, scope, caller)

        return handle

    async def _post_transaction(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        idempotency_key(scope)
        body = await read_json(scope, receive)
        return await self._ask(Door.POST_TRANSACTION, scope, caller, body)

    async def _post_to_feed(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        idempotency_key(scope)
        body = await read_json(scope, receive)
        return await self._ask(Door.POST_TO_FEED, scope, caller, body)

    async def _post_batch(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        batch_options(scope["query_string"])
        idempotency_key(scope)
        body = await read_json(scope, receive, BATCH_BYTES_MAX, takes_ndjson=True)
        return await self._ask(Door.POST_BATCH, scope, caller, body)

    async def _delete(self, scope: Scope, receive: Receive, caller: Caller) -> Answer:
        check_length(scope)
        await read_body(receive)
        return await self._ask(Door.DELETE_TRANSACTIONS, scope, caller)

    async def _ask(self, door: Door, scope: Scope, caller: Caller, body: bytes = b"") -> Answer:
        """The answer; an error has an id that whoever made it knows, too. Raises Problem."""
        request_id = sane_request_id(scope) or make_request_id()
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def reply(answer: Answer) -> None:
            # The server cancels what is still open when a drain takes too long.
            if not answered.done():
                answered.set_result(answer)

        headers = tuple(header for header in scope["headers"] if header[0] in _HEADERS)
        asked = Asked(
            door=door,
            query=scope["query_string"],
            headers=headers,
            path_params=scope.get("path_params", {}),
            subject=caller.subject,
            permissions=tuple(caller.permissions),
            body=body,
            request_id=request_id,
            trace_id=trace_of(scope["headers"]),
        )
        self._office.ask(asked, reply)
        answer = await answered
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise Relayed(answer, request_id)
        return answer


class Backroom:
    """Answers what was handed on, by the handlers of a process that has the ledger."""

    def __init__(self, handlers: Handlers, counts: Counts) -> None:
        self._counts = counts
        self._handlers: Mapping[Door, Handler] = {
            Door.POST_TRANSACTION: handlers.post_transaction,
            Door.DELETE_TRANSACTIONS: handlers.delete_transactions,
            Door.POST_BATCH: handlers.post_batch,
            Door.POST_TO_FEED: handlers.post_to_feed,
            Door.FIND: handlers.find,
            Door.FIND_OF_USER: handlers.find_of_user,
            Door.GET_TRANSACTION: handlers.get_transaction,
            Door.GET_STATS: handlers.get_stats,
            Door.READY: handlers.ready,
            Door.REPORT: handlers.report,
            Door.METRICS: handlers.metrics,
        }

    async def answer(self, asked: Asked) -> Answer:
        """The answer to a request, whatever comes of it."""
        scope: dict[str, Any] = {
            "type": "http",
            "query_string": asked.query,
            "headers": asked.headers,
            "path_params": asked.path_params,
        }
        caller = Caller(asked.subject, frozenset(asked.permissions))
        try:
            return await self._handlers[asked.door](scope, _receiving(asked.body), caller)
        except Problem as refusal:
            answer = refusal.answer
        except asyncio.CancelledError:
            return CUT_SHORT
        except Exception:
            answer = internal_error(asked.request_id, asked.trace_id)
        if asked.door in BRINGING:
            # As a Resource would.
            self._counts.refuse_transaction(answer.status)
        return answer


def _receiving(body: bytes) -> Callable[[], Awaitable[Message]]:
    return partial(_receive, {"type": "http.request", "body": body, "more_body": False})


async def _receive(message: Message) -> Message:
    return message
