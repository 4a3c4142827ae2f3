"""The parameters of the feed, as the description of the service shows them."""

from collections.abc import Mapping
from typing import Any, Final

from app.core.activity import METADATA_FILTERS, Product, Status, TransactionType
from app.web.feed_query import LIMIT_DEFAULT, LIMIT_MAX, PAGE_MAX, SEARCH_CHARS_MAX

Schema = dict[str, Any]
"""A part of the document: an object of OpenAPI, or a JSON Schema."""

_DECIMAL: Final = {
    "type": "string",
    "pattern": r"^-?(0|[1-9][0-9]*)(\.[0-9]{1,8})?([eE][+-]?[0-9]{1,18})?$",
    "examples": ["12.50"],
}
_LIMIT: Final = {
    "type": "integer",
    "minimum": 1,
    "maximum": LIMIT_MAX,
    "default": LIMIT_DEFAULT,
}


def _query(description: str, schema: Schema) -> Schema:
    return {"in": "query", "description": description, "schema": schema}


FEED_PARAMETERS: Final[Mapping[str, Schema]] = {
    "user_id": _query("Whose they are.", {"type": "string", "minLength": 1, "maxLength": 128}),
    "transaction_type": _query(
        "What kind they are.", {"type": "string", "enum": [each.value for each in TransactionType]}
    ),
    "product": _query(
        "Which product they belong to.", {"type": "string", "enum": [each.value for each in Product]}
    ),
    "status": _query(
        "How far they have come.", {"type": "string", "enum": [each.value for each in Status]}
    ),
    "start_date": _query(
        "The earliest instant, included: spelled as timestamps are, an epoch in digits. A `+` in it is "
        "sent as `%2B`.",
        {"type": "string", "examples": ["2026-01-02T03:04:05.678Z", "1767323045678"]},
    ),
    "end_date": _query(
        "The latest instant, included; of a date alone, the whole day.",
        {"type": "string", "examples": ["2026-01-02"]},
    ),
    "min_amount": _query("The least amount, included.", _DECIMAL),
    "max_amount": _query("The greatest amount, included.", _DECIMAL),
    **{
        name: _query(f"The whole `{name}` of the metadata.", {"type": "string"})
        for name in METADATA_FILTERS
    },
    "search_query": _query(
        "Words that must all stand in the text of the metadata, in any order, without case and accents. "
        "It is literal: every visible sign stands for itself.",
        {"type": "string", "minLength": 1, "maxLength": SEARCH_CHARS_MAX, "examples": ["café brno"]},
    ),
    "limit": _query("How many items at most.", _LIMIT),
    "cursor": _query(
        "The `next_cursor` of an earlier answer. It carries the filters: any given beside it must be "
        "the same.",
        {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
    ),
    "page": _query(
        "The page, instead of `limit` and `cursor`: the answer has totals, which cost reading all that "
        "is found.",
        {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": 1},
    ),
    "page_size": _query("How many items a page has.", _LIMIT),
}
