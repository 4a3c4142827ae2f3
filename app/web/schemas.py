"""Bodies of requests and answers, as the description of the service (`openapi.py`) shows them.

They describe and decode nothing: the code reads amounts and times from their literals and writes figures
digit by digit, where no type says what is accepted. Tests hold real answers against them.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.core.activity import METADATA_BYTES_MAX, Product, Status, TransactionType
from app.core.metadata import Metadata, own_fields
from app.core.transaction import FieldError

_LARGEST: Final = 92_233_720_368.54775807
_DECIMAL: Final = r"^-?(0|[1-9][0-9]*)(\.[0-9]{1,8})?([eE][+-]?[0-9]{1,18})?$"

Amount = Annotated[
    Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)] | Annotated[str, Meta(pattern=_DECIMAL)],
    Meta(
        description="An exact decimal: a JSON number, or a string spelled like one. At most 8 fraction "
        "digits, magnitude at most 92233720368.54775807; negative only where the deployment allows it.",
        examples=["12.50", 99.9],
    ),
]
Timestamp = Annotated[
    float | str,
    Meta(
        description="When it happened: epoch seconds (magnitude up to 20000000000) or milliseconds "
        "(above) as a number, or an ISO 8601 string; without an offset it is UTC. Digits below a "
        "millisecond are cut.",
        examples=["2026-01-02T03:04:05.678Z", 1767323045.678, 1767323045678],
    ),
]
Currency = Annotated[
    Annotated[str, Meta(pattern="^[A-Z0-9]{2,12}$")] | None,
    Meta(
        description="An ISO 4217 code in capitals, or one that the deployment accepts beside them. "
        "Absent, it is the deployment's default.",
        examples=["EUR"],
    ),
]
UserId = Annotated[
    Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    | int
    | None,
    Meta(
        description="Whose it is: text without control characters, or an integer, kept as its text. "
        "Absent, it is the subject of the token.",
        examples=["u-1"],
    ),
]
Figure = Annotated[
    float,
    Meta(
        description="An exact decimal with two to eight fraction digits; a binary float may lose some.",
        examples=[12.5],
    ),
]
Count = Annotated[int, Meta(ge=0)]
Instant = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
        extra_json_schema={"format": "date-time"},
        examples=["2026-01-02T03:04:05.678Z"],
    ),
]
Identifier = Annotated[
    str,
    Meta(
        description="A UUID of version 7: ids sort by arrival.",
        pattern="^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
        extra_json_schema={"format": "uuid"},
        examples=["019b7c8e-0f4e-7000-8000-5f1c3a2b4d6e"],
    ),
]


class Transaction(msgspec.Struct):
    """One transaction. Fields beyond these are ignored; of a field given twice the last one counts."""

    amount: Amount
    timestamp: Timestamp
    currency: Currency = None
    user_id: UserId = None


class BatchItem(Transaction):
    """One transaction of a batch."""

    idempotency_key: Annotated[
        Annotated[str, Meta(min_length=1, max_length=255, pattern="^[!-~]+$")] | None,
        Meta(description="Makes a retry of this item safe, as the header does for a whole request."),
    ] = None


class Accepted(msgspec.Struct):
    """Durable from here on."""

    id: Identifier
    counted: (
        Annotated[
            bool,
            Meta(
                description="Present where the transaction was kept, but is older than the window and "
                "so in no statistics.",
                extra_json_schema={"const": False},
            ),
        ]
        | UnsetType
    ) = UNSET


_KNOWN: Final = "; ".join(
    f"of `{kind.value}`, {', '.join(f'`{name}` is {told}' for name, told in own_fields(kind).items())}"
    for kind in TransactionType
)


class Entry(msgspec.Struct):
    """A transaction of the feed. Fields beyond these are ignored."""

    amount: Amount
    user_id: UserId = None
    currency: Currency = None
    transaction_type: Annotated[
        TransactionType | None, Meta(description="What kind it is.", examples=["card"])
    ] = None
    product: Annotated[
        Product | None, Meta(description="Which product it belongs to.", examples=["Card"])
    ] = None
    status: Annotated[
        Status | None,
        Meta(description="How far it has come; absent, it is `completed`.", examples=["pending"]),
    ] = None
    metadata: Annotated[
        Metadata | None,
        Meta(
            description=f"More about it, at most {METADATA_BYTES_MAX} bytes as sent. Known fields have "
            f"their form: what is filtered by is text; {_KNOWN}. Any others are free.",
            examples=[{"merchant_name": "Café Šárka", "card_last_four": "4242"}],
        ),
    ] = None
    timestamp: Annotated[
        Timestamp | None,
        Meta(
            description="When it happened, as of any transaction; absent, it is now.",
            examples=["2026-01-02T03:04:05.678Z", 1767323045],
        ),
    ] = None


class FeedTransaction(msgspec.Struct):
    """A transaction as the feed shows it."""

    id: Identifier
    user_id: Annotated[str | None, Meta(examples=["u-1"])]
    amount: Figure
    currency: Annotated[str, Meta(examples=["EUR"])]
    timestamp: Annotated[Instant, Meta(description="When it happened.")]
    transaction_type: TransactionType | None
    product: Product | None
    status: Status
    metadata: dict[str, Any]
    created_at: Annotated[Instant, Meta(description="When it was taken in.")]


class FeedPage(msgspec.Struct):
    """Transactions, newest first by `timestamp`, then by `id`."""

    items: list[FeedTransaction]
    page_size: Annotated[int, Meta(ge=1, le=100)]
    next_cursor: Annotated[
        str | None, Meta(description="What leads on to the next items; null where there are none.")
    ]
    total: Annotated[Count, Meta(description="With `page`: how many there are.")] | UnsetType = UNSET
    page: Annotated[int, Meta(ge=1, description="Behind a cursor it is not known.")] | UnsetType = UNSET
    total_pages: Count | UnsetType = UNSET


class ItemError(msgspec.Struct):
    """What is wrong with one item of a batch; an item with several wrong fields has several."""

    index: Annotated[Count, Meta(description="The item's place in the batch, from 0.")]
    code: Annotated[
        str,
        Meta(
            description="`invalid_field`, `timestamp_ahead`, `malformed_body` and so on.",
            examples=["invalid_field"],
        ),
    ]
    detail: Annotated[str, Meta(examples=["must not be negative"])]
    field: Annotated[str, Meta(examples=["amount"])] | UnsetType = UNSET


class BatchResult(msgspec.Struct):
    """What became of the items. The four counts add up to their number."""

    accepted: Annotated[Count, Meta(description="Durable from here on.")]
    duplicate: Annotated[Count, Meta(description="Accepted before, under the same key.")]
    late: Annotated[Count, Meta(description="Older than the window: neither kept nor counted.")]
    rejected: Annotated[Count, Meta(description="Wrong; `errors` says what.")]
    errors: Annotated[list[ItemError], Meta(description="In the order of the items.")]
    ids: (
        Annotated[
            list[Identifier | None],
            Meta(description="With `?ids=true`: the id of each item, null where it has none."),
        ]
        | UnsetType
    ) = UNSET


class Figures(msgspec.Struct):
    """Figures over some transactions; all zero where there are none."""

    sum: Figure
    avg: Annotated[Figure, Meta(description="Rounded to eight fraction digits, ties away from zero.")]
    max: Figure
    min: Figure
    count: Count


class Statistics(Figures, kw_only=True):
    """Figures over every transaction with `as_of - window <= timestamp`; they may mix currencies."""

    window_seconds: Annotated[float, Meta(gt=0, examples=[60])]
    resolution_ms: Annotated[int, Meta(ge=1, description="How exact the old edge of the window is.")]
    as_of: Annotated[Instant, Meta(description="The instant these figures are true of.")]
    nodes: (
        Annotated[int, Meta(ge=1, description="Nodes there are, where several are set up.")] | UnsetType
    ) = UNSET
    max_lag_ms: (
        Annotated[
            int,
            Meta(ge=0, description="So long ago all was counted that is missing of any other node."),
        ]
        | UnsetType
    ) = UNSET
    degraded: (
        Annotated[bool, Meta(description="Whether more may be missing: a node or the exchange is gone.")]
        | UnsetType
    ) = UNSET
    by_currency: Annotated[dict[str, Figures], Meta(description="Those of each currency that occurs.")]


class Alive(msgspec.Struct):
    """It is well."""

    status: Annotated[str, Meta(extra_json_schema={"const": "ok"})]


Condition = Literal["healthy", "degraded", "unhealthy"]


class Dependency(msgspec.Struct):
    """One thing that the service depends on."""

    status: Condition
    detail: Annotated[str, Meta(description="What is wrong with it.")] | UnsetType = UNSET


class Node(msgspec.Struct):
    """Another node, as this one sees it."""

    node: Annotated[str, Meta(examples=["node-2"])]
    status: Condition
    lag_ms: Annotated[int, Meta(ge=0, description="All it had counted so long ago is counted here.")]
    clock_skew_ms: Annotated[float, Meta(description="How far its clock is ahead of this node's.")]


class Health(msgspec.Struct):
    """The worst of what is depended on, and each of it."""

    status: Condition
    dependencies: dict[str, Dependency]
    nodes: (
        Annotated[list[Node], Meta(description="The others by name, where one may have others.")]
        | UnsetType
    ) = UNSET


class ProblemDetails(msgspec.Struct):
    """Any error (RFC 9457). `code` is what a client may rely on; `title` and `detail` are for people."""

    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    code: str
    detail: str
    errors: (
        Annotated[list[FieldError], Meta(description="One for each wrong field or parameter.")]
        | UnsetType
    ) = UNSET


BODIES: Final = (
    Transaction,
    BatchItem,
    Accepted,
    BatchResult,
    Entry,
    FeedTransaction,
    FeedPage,
    Statistics,
    Alive,
    Health,
    ProblemDetails,
)

TEXTS: Final = {
    "Events": {
        "type": "string",
        "description": "Server-sent events: `id`, `data` with the figures as `/stats` answers them, "
        "and an empty line.",
        "examples": [
            'retry: 1000\nid: 1767323045678\ndata: {"sum":12.50,"avg":12.50,"max":12.50,"min":12.50,'
            '"count":1,"window_seconds":60,"resolution_ms":1,"as_of":"2026-01-02T03:04:05.678Z",'
            '"by_currency":{"EUR":{"sum":12.50,"avg":12.50,"max":12.50,"min":12.50,"count":1}}}\n\n'
        ],
    },
    "Exposition": {"type": "string", "description": "Metrics, one sample a line."},
    "Page": {"type": "string", "description": "A page for a browser."},
    "Asset": {"type": "string", "description": "What it is is in its content type."},
}
"""Schemas of what is no JSON."""
