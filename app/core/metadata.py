"""Metadata: what a transaction of each type may say, and in what form.

Nothing here is required, and fields beyond these are free; but a known field has its form. A form is a
type that msgspec checks, and its description is what a caller is told. Whoever adds a field, or a type,
adds one entry.
"""

import re
from collections.abc import Mapping
from types import NoneType
from typing import Annotated, Any, Final, get_args, get_type_hints

import msgspec
from msgspec import Meta

from app.core.activity import METADATA_BYTES_MAX, TransactionType
from app.core.transaction import FieldError, Invalid

DEPTH_MAX: Final = 32

# Tabs and line breaks are text; other control characters are not, and one database takes no NUL.
CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

Text = Annotated[str, Meta(description="text")]
FourDigits = Annotated[
    str, Meta(pattern="^[0-9]{4}$", max_length=4, description="text of exactly four digits")
]
Address = Annotated[
    str, Meta(pattern=r"^[^\s@]+@[^\s@]+$(?!\n)", max_length=254, description="an e-mail address")
]
Date = Annotated[
    str,
    Meta(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$", max_length=10, description="a date such as 2026-01-02"),
]


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that the feed is filtered by: text, whatever the type."""

    merchant_name: Text | None = None
    merchant_category: Text | None = None
    card_last_four: Text | None = None
    location: Text | None = None
    peer_name: Text | None = None
    peer_email: Text | None = None
    direction: Text | None = None


class Card(Metadata, frozen=True, kw_only=True):
    """A payment by card."""

    card_last_four: FourDigits | None = None


class PeerToPeer(Metadata, frozen=True, kw_only=True):
    """A payment between two people."""

    peer_email: Address | None = None


class Crypto(Metadata, frozen=True, kw_only=True):
    """A payment in a crypto asset."""

    asset: Text | None = None
    network: Text | None = None
    wallet_address: Text | None = None
    transaction_hash: Text | None = None


class TopUp(Metadata, frozen=True, kw_only=True):
    """Money that comes in from outside."""

    card_last_four: FourDigits | None = None
    source: Text | None = None


class Withdrawal(Metadata, frozen=True, kw_only=True):
    """Money that leaves, in cash or to an account elsewhere."""

    card_last_four: FourDigits | None = None
    destination: Text | None = None


class BillPayment(Metadata, frozen=True, kw_only=True):
    """A bill that was paid."""

    biller_name: Text | None = None
    reference: Text | None = None
    due_date: Date | None = None


class Earnings(Metadata, frozen=True, kw_only=True):
    """Interest, rewards and the like."""

    source: Text | None = None


RULES: Final[Mapping[TransactionType, type[Metadata]]] = {
    TransactionType.CARD: Card,
    TransactionType.P2P: PeerToPeer,
    TransactionType.CRYPTO: Crypto,
    TransactionType.TOP_UP: TopUp,
    TransactionType.WITHDRAWAL: Withdrawal,
    TransactionType.BILL_PAYMENT: BillPayment,
    TransactionType.EARNINGS: Earnings,
}


def read_metadata(literal: bytes, transaction_type: TransactionType | None) -> bytes:
    """Read a JSON object as it is kept: one spelling, whatever the order of its fields.

    Raises Invalid, which names every known field that is wrong, and ValueError for the whole.
    """
    if len(literal) > METADATA_BYTES_MAX:
        raise ValueError(_TOO_LONG)
    try:
        value = msgspec.json.decode(literal)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except msgspec.DecodeError:
        raise ValueError("must have numbers that a 64-bit float can hold") from None
    if value is None:
        return b"{}"
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    _check_plain(value)
    errors = [
        FieldError(f"/metadata/{name}", f"must be {form.told}")
        for name, form in _FORMS[transaction_type].items()
        if name in value and not form.takes(value[name])
    ]
    if errors:
        raise Invalid(*errors)
    kept = msgspec.json.encode(value, order="sorted")
    if len(kept) > METADATA_BYTES_MAX:
        # A number such as 1e15 is longer when it is written out.
        raise ValueError(_TOO_LONG)
    return kept


def own_fields(transaction_type: TransactionType) -> Mapping[str, str]:
    """The known fields of a type beyond those of any, each with what it must be."""
    common = _FORMS[None]
    return {
        name: form.told
        for name, form in _FORMS[transaction_type].items()
        if name not in common or form.told != common[name].told
    }


_TOO_LONG: Final = f"must have at most {METADATA_BYTES_MAX} bytes"
_TOO_DEEP: Final = f"must not be nested deeper than {DEPTH_MAX} levels"


class _Form(msgspec.Struct, frozen=True):
    """What a field may be, and the same in words."""

    kind: Any
    told: str

    @classmethod
    def of(cls, hint: object) -> "_Form":
        (stated,) = (part for part in get_args(hint) if part is not NoneType)
        return cls(hint, get_args(stated)[1].description)

    def takes(self, value: object) -> bool:
        try:
            msgspec.convert(value, self.kind)
        except msgspec.ValidationError:
            return False
        return True


def _forms(rule: type[Metadata]) -> Mapping[str, _Form]:
    return {name: _Form.of(hint) for name, hint in get_type_hints(rule, include_extras=True).items()}


_FORMS: Final[Mapping[TransactionType | None, Mapping[str, _Form]]] = {
    None: _forms(Metadata),
    **{transaction_type: _forms(rule) for transaction_type, rule in RULES.items()},
}


def _check_plain(value: object, depth: int = 1) -> None:
    """Whether a JSON value is nested no deeper, and its texts are plain. Raises ValueError."""
    if isinstance(value, str):
        if CONTROL.search(value):
            raise ValueError("must have no control characters but tabs and line breaks")
    elif isinstance(value, dict | list):
        if depth > DEPTH_MAX:
            raise ValueError(_TOO_DEEP)
        for part in value:
            _check_plain(part, depth + 1)
        if isinstance(value, dict):
            for part in value.values():
                _check_plain(part, depth + 1)
