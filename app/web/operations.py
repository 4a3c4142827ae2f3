"""What each method of each path does, takes and answers, as the description of the service shows it.

Whoever adds a door to `routes.py` adds its operation here, its bodies to `schemas.py`, and codes of its
own to `catalogue.py`. What may befall any request, and any caller, need not be said again.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec

from app.core.transaction import BATCH_ITEMS_MAX
from app.web.answers import Code
from app.web.feed_parameters import FEED_PARAMETERS, Schema
from app.web.pages import ASSETS, HTML

REFERENCE: Final = "#/components/schemas/{name}"

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
METRICS_TYPES: Final = ("text/plain", "application/openmetrics-text")

ANYTIME: Final = (
    Code.MALFORMED_REQUEST,
    Code.REQUEST_TIMEOUT,
    Code.BODY_TOO_LARGE,
    Code.TARGET_TOO_LONG,
    Code.HEADERS_TOO_LARGE,
    Code.TOO_MANY_CONNECTIONS,
    Code.NOT_READY,
    Code.INTERNAL_ERROR,
)
OF_THE_CALLER: Final = (
    Code.UNAUTHORIZED,
    Code.FORBIDDEN,
    Code.RATE_LIMITED,
    Code.KEYS_UNAVAILABLE,
)
_OF_THE_BODY: Final = (Code.MALFORMED_BODY, Code.BODY_TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE)
_OF_THE_KEY: Final = (Code.MALFORMED_IDEMPOTENCY_KEY, Code.IDEMPOTENCY_CONFLICT)
_OF_THE_STORE: Final = (Code.NOT_READY, Code.STORE_REFUSED, Code.STORE_FAILED)


class Success(msgspec.Struct, frozen=True):
    """One way in which a request can succeed."""

    status: HTTPStatus
    text: str
    body: str | None = None
    """The name of its schema."""
    headers: tuple[str, ...] = ()
    media_types: tuple[str, ...] = (JSON,)


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What one method of one path does."""

    name: str
    tag: str
    summary: str
    text: str = ""
    parameters: tuple[str, ...] = ()
    body: Mapping[str, Schema] = {}
    successes: tuple[Success, ...]
    failures: tuple[str, ...] = ()


def schema(name: str) -> Schema:
    """A reference to one of the schemas."""
    return {"$ref": REFERENCE.format(name=name)}


_STATISTICS: Final = Operation(
    name="statistics",
    tag="Statistics",
    summary="Exact figures over the window",
    text="Counts every transaction with `as_of - window <= timestamp`, to the millisecond, in constant "
    "time. A parameter that is unknown or given twice is refused.",
    parameters=("window", "currency", "user_id"),
    successes=(Success(HTTPStatus.OK, "The figures.", "Statistics"),),
    failures=(Code.INVALID_PARAMETER, Code.NOT_READY, Code.TOO_MANY_TRANSACTIONS),
)
_OF_A_STREAM: Final = (Code.INVALID_PARAMETER, Code.NOT_READY, Code.TOO_MANY_SUBSCRIBERS)
_FIND: Final = Operation(
    name="findTransactions",
    tag="Feed",
    summary="Transactions, newest first, by any of their fields",
    text="Everything that is asked for must hold. With a token it is about its subject unless `user_id` "
    "says otherwise, which needs the scope `transactions:read_all`. Go on by `cursor`, which carries "
    "the filters and is stable while transactions arrive, or by `page`.",
    parameters=("currency", *FEED_PARAMETERS),
    successes=(Success(HTTPStatus.OK, "A part of the answer.", "FeedPage"),),
    failures=(Code.INVALID_PARAMETER, Code.INVALID_CURSOR, *_OF_THE_STORE),
)
_GET: Final = Operation(
    name="transaction",
    tag="Feed",
    summary="One transaction",
    text="Others' are as if they were not there, unless the token has `transactions:read_all`.",
    parameters=("id",),
    successes=(Success(HTTPStatus.OK, "It is there.", "FeedTransaction"),),
    failures=(Code.MALFORMED_IDENTIFIER, Code.NOT_FOUND, *_OF_THE_STORE),
)
_ALIVE: Final = Operation(
    name="alive",
    tag="Operation",
    summary="Whether the process turns",
    successes=(Success(HTTPStatus.OK, "It does.", "Alive"),),
)
_STILL: Final = Success(HTTPStatus.NOT_MODIFIED, "It is still the one of that tag.", None, ("ETag",))
_PAGE: Final = Operation(
    name="page",
    tag="Pages",
    summary="A page",
    parameters=("If-None-Match",),
    successes=(Success(HTTPStatus.OK, "The page.", "Page", ("ETag",), (HTML,)), _STILL),
)

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("/transactions", "POST"): Operation(
        name="postTransaction",
        tag="Transactions",
        summary="Take one transaction in",
        text="Answered when it is durable, and counted in every later answer of statistics.",
        parameters=("Idempotency-Key",),
        body={JSON: schema("Transaction")},
        successes=(
            Success(HTTPStatus.CREATED, "Durable, and counted unless it says otherwise.", "Accepted"),
            Success(HTTPStatus.NO_CONTENT, "Older than the window: neither kept nor counted."),
        ),
        failures=(
            *_OF_THE_BODY,
            *_OF_THE_KEY,
            Code.INVALID_FIELD,
            Code.TIMESTAMP_AHEAD,
            *_OF_THE_STORE,
        ),
    ),
    ("/transactions", "DELETE"): Operation(
        name="deleteTransactions",
        tag="Transactions",
        summary="Clear all transactions and the statistics",
        text="What was acknowledged before it never returns; what is acknowledged after it stays.",
        successes=(Success(HTTPStatus.NO_CONTENT, "Durably cleared."),),
        failures=(Code.BODY_TOO_LARGE, *_OF_THE_STORE),
    ),
    ("/transactions/batch", "POST"): Operation(
        name="postBatch",
        tag="Transactions",
        summary="Take many transactions in, with one commit for all",
        text=f"At most {BATCH_ITEMS_MAX} items and 8 MiB. Items that are wrong do not sink the others.",
        parameters=("Idempotency-Key", "atomic", "ids"),
        body={
            JSON: {"type": "array", "items": schema("BatchItem"), "maxItems": BATCH_ITEMS_MAX},
            NDJSON: {"type": "string", "description": "A JSON object a line; empty lines are no items."},
        },
        successes=(Success(HTTPStatus.OK, "A verdict for each; durable and counted.", "BatchResult"),),
        failures=(
            *_OF_THE_BODY,
            *_OF_THE_KEY,
            Code.TOO_MANY_ITEMS,
            Code.INVALID_FIELD,
            Code.INVALID_PARAMETER,
            *_OF_THE_STORE,
        ),
    ),
    ("/transactions", "GET"): _FIND,
    ("/transactions/{id}", "GET"): _GET,
    ("/api/v1/transactions", "POST"): Operation(
        name="postToFeed",
        tag="Feed",
        summary="Keep a transaction with all it says of itself",
        text="One of the past is kept, too; it is counted in the statistics only while it is inside the "
        "window. Answered when it is durable.",
        parameters=("Idempotency-Key",),
        body={JSON: schema("Entry")},
        successes=(Success(HTTPStatus.CREATED, "Durable.", "FeedTransaction"),),
        failures=(
            *_OF_THE_BODY,
            *_OF_THE_KEY,
            Code.INVALID_FIELD,
            Code.TIMESTAMP_AHEAD,
            *_OF_THE_STORE,
        ),
    ),
    ("/api/v1/transactions", "GET"): msgspec.structs.replace(
        _FIND,
        name="findTransactionsOfUser",
        text=f"{_FIND.text} Where there is no token, `user_id` is required.",
        failures=(*_FIND.failures, Code.MISSING_USER_ID),
    ),
    ("/api/v1/transactions/{id}", "GET"): msgspec.structs.replace(_GET, name="transactionOfFeed"),
    ("/stats", "GET"): _STATISTICS,
    ("/statistics", "GET"): msgspec.structs.replace(_STATISTICS, name="statisticsByTheirLongName"),
    ("/stats/stream", "GET"): Operation(
        name="statisticsStream",
        tag="Statistics",
        summary="The figures again and again, as server-sent events",
        text="An event at once, then one every `interval`. It is the state of that moment, as `/stats` "
        "answers it, with the instant in milliseconds as its id: to resume is to ask again. While there "
        "are no figures an event `unready` says why, with the problem that `/stats` would answer. What "
        "is longer silent than 15 s says `:`. It ends when the service does, or the token is no longer "
        "good. A half of the connections there may be, 2000 at most, can be streams.",
        parameters=("window", "currency", "interval"),
        successes=(
            Success(HTTPStatus.OK, "Events without end.", "Events", media_types=("text/event-stream",)),
        ),
        failures=_OF_A_STREAM,
    ),
    ("/health", "GET"): msgspec.structs.replace(_ALIVE, name="health"),
    ("/livez", "GET"): _ALIVE,
    ("/readyz", "GET"): Operation(
        name="ready",
        tag="Operation",
        summary="Whether a transaction would be accepted now",
        successes=(Success(HTTPStatus.OK, "It would.", "Alive"),),
        failures=(Code.NOT_READY,),
    ),
    ("/api/v1/health", "GET"): Operation(
        name="report",
        tag="Operation",
        summary="How the service is, and each thing it depends on",
        text="Always 200: what acts on a status asks `/readyz`.",
        successes=(Success(HTTPStatus.OK, "How it is.", "Health"),),
    ),
    ("/metrics", "GET"): Operation(
        name="metrics",
        tag="Operation",
        summary="How the service is and what it has done, for Prometheus",
        text="In the text format of Prometheus, or as OpenMetrics where `Accept` prefers that. For all "
        "`WORKERS` of a node, whichever answers. It needs a token only where the deployment says so.",
        successes=(Success(HTTPStatus.OK, "The figures.", "Exposition", media_types=METRICS_TYPES),),
    ),
    ("/openapi.json", "GET"): Operation(
        name="description",
        tag="Operation",
        summary="This document",
        parameters=("If-None-Match",),
        successes=(
            Success(HTTPStatus.OK, "The document.", "Document", ("ETag",)),
            _STILL,
        ),
    ),
    ("/", "GET"): msgspec.structs.replace(
        _PAGE,
        name="dashboard",
        summary="The figures, live, as a page",
        text="Where tokens are asked for, the page asks for one, and keeps it in memory only.",
    ),
    ("/docs", "GET"): msgspec.structs.replace(
        _PAGE, name="docs", summary="This description as a page to try requests out (Swagger UI)"
    ),
    ("/redoc", "GET"): msgspec.structs.replace(
        _PAGE, name="redoc", summary="This description as a page to read (ReDoc)"
    ),
    ("/assets/{name}", "GET"): msgspec.structs.replace(
        _PAGE,
        name="asset",
        summary="What the pages load",
        parameters=("name", *_PAGE.parameters),
        successes=(
            Success(
                HTTPStatus.OK,
                "A script, a style sheet or a picture.",
                "Asset",
                ("ETag",),
                tuple(sorted(set(ASSETS.values()))),
            ),
            _STILL,
        ),
        failures=(Code.NOT_FOUND,),
    ),
}

PARAMETERS: Final[Mapping[str, Schema]] = {
    "Idempotency-Key": {
        "in": "header",
        "description": "Makes a retry safe: the same key with the same body has the first answer again, "
        "and is counted once. Kept for 24 hours or more; a refused or late request burns none.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    },
    "X-Request-ID": {
        "in": "header",
        "description": "An id of the caller's own, 1 to 64 visible ASCII characters, echoed on the "
        "answer. Anything else is ignored.",
        "schema": {"type": "string", "examples": ["my-id"]},
    },
    "If-None-Match": {
        "in": "header",
        "description": "The `ETag` of an earlier answer.",
        "schema": {"type": "string"},
    },
    "window": {
        "in": "query",
        "description": "The part of the window that is asked for, up to the whole: a span in `ms`, `s`, "
        "`m` or `h`, without a unit in seconds.",
        "schema": {"type": "string", "pattern": r"^[0-9]{1,12}(\.[0-9]{1,3})?(ms|s|m|h)?$"},
        "examples": {"ms": {"value": "250ms"}, "s": {"value": "10s"}, "seconds": {"value": "30"}},
    },
    "currency": {
        "in": "query",
        "description": "The one currency that is asked for.",
        "schema": {"type": "string", "pattern": "^[A-Z0-9]{2,12}$", "examples": ["EUR"]},
    },
    "user_id": {
        "in": "query",
        "description": "The one user whose transactions are asked for. With a token, another one's than "
        "its `sub` needs the scope `transactions:read_all`. Refused where the deployment keeps none.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": 128,
            "pattern": r"^[^\u0000-\u001f\u007f-\u009f]+$",
            "examples": ["u-1"],
        },
    },
    "interval": {
        "in": "query",
        "description": "How often: a span from `250ms` to `60s`, written as a window is.",
        "schema": {
            "type": "string",
            "pattern": r"^[0-9]{1,12}(\.[0-9]{1,3})?(ms|s|m|h)?$",
            "default": "1s",
            "examples": ["500ms"],
        },
    },
    "name": {
        "in": "path",
        "required": True,
        "description": "One of the names that the pages load.",
        "schema": {"type": "string", "enum": list(ASSETS)},
    },
    "atomic": {
        "in": "query",
        "description": "Whether one wrong item makes it 422 and keeps nothing. To be late is not wrong.",
        "schema": {"type": "boolean", "default": False},
    },
    "ids": {
        "in": "query",
        "description": "Whether the answer has the ids of what was accepted.",
        "schema": {"type": "boolean", "default": False},
    },
    "id": {
        "in": "path",
        "required": True,
        "description": "The id that the transaction was answered with.",
        "schema": {"type": "string", "format": "uuid"},
        "example": "019b7c8e-0f4e-7000-8000-5f1c3a2b4d6e",
    },
    **FEED_PARAMETERS,
}

HEADERS: Final[Mapping[str, Schema]] = {
    "X-Request-ID": {
        "description": "The caller's id, else one made here: it is in the log, too.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[!-~]{1,64}$"},
    },
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {
        "description": "What is missing (RFC 6750).",
        "required": True,
        "schema": {"type": "string"},
    },
    "Allow": {
        "description": "The methods that the path has.",
        "required": True,
        "schema": {"type": "string"},
    },
    "ETag": {"required": True, "schema": {"type": "string", "pattern": '^"[0-9a-f]+"$'}},
}
