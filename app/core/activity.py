"""What a transaction of the feed says beside who, how much and when, and what it is found by."""

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from hashlib import blake2b
from typing import Any, Final

import msgspec

from app.core.words import words

METADATA_BYTES_MAX: Final = 4096

METADATA_FILTERS: Final = (
    "merchant_name",
    "merchant_category",
    "card_last_four",
    "location",
    "peer_name",
    "peer_email",
    "direction",
)
"""The fields of metadata that the feed is filtered by, each as a whole."""

_DIGEST_BYTES: Final = 16
_IS_WORD: Final = re.compile(r"\w+")


class TransactionType(Enum):
    """What kind of transaction it is."""

    CARD = "card"
    P2P = "p2p"
    CRYPTO = "crypto"
    TOP_UP = "top_up"
    WITHDRAWAL = "withdrawal"
    BILL_PAYMENT = "bill_payment"
    EARNINGS = "earnings"


class Product(Enum):
    """Which product it belongs to."""

    CARD = "Card"
    P2P = "P2P"
    CRYPTO = "Crypto"
    EARNINGS = "Earnings"


class Status(Enum):
    """How far it has come."""

    COMPLETED = "completed"
    PENDING = "pending"
    FAILED = "failed"


class Details(msgspec.Struct, frozen=True, gc=False):
    """What a transaction says of itself beyond the plain fields. `metadata` is JSON, as it is kept."""

    transaction_type: TransactionType | None = None
    product: Product | None = None
    status: Status = Status.COMPLETED
    metadata: bytes = b"{}"


PLAIN: Final = Details()
"""What a transaction says that says nothing more."""


def terms(details: Details) -> list[str]:
    """What a transaction is found by because of its details: for an inverted index, each term once.

    A term is a word of the metadata's text, or a name, an equals sign and a value; no word has an
    equals sign in it, as signs are written by their code points.
    """
    found = {"s=" + details.status.value: None}
    if details.transaction_type is not None:
        found["t=" + details.transaction_type.value] = None
    if details.product is not None:
        found["p=" + details.product.value.lower()] = None
    metadata: Mapping[str, Any] = msgspec.json.decode(details.metadata)
    for name in METADATA_FILTERS:
        value = metadata.get(name)
        if isinstance(value, str):
            found[metadata_term(name, value)] = None
    distinct = {word: None for text in texts(metadata) for word in words(text)}
    found.update(dict.fromkeys(map(word_term, distinct)))
    return list(found)


def metadata_term(name: str, value: str) -> str:
    """The term of a field of metadata and its whole value: a digest, as values may be long."""
    return f"{name}={blake2b(value.encode(), digest_size=_DIGEST_BYTES).hexdigest()}"


def word_term(word: str) -> str:
    """The term of a word: itself; of a sign, its code point, which engines do not take for a gap."""
    return word if _IS_WORD.fullmatch(word) and word != "_" else f"x={ord(word):x}"


def texts(value: object) -> Iterator[str]:
    """Every text in a JSON value, the names of fields not among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)
