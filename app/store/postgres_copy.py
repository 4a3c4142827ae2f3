"""Rows and records as PostgreSQL's binary COPY has them: packed here, in half of a driver's time."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from struct import Struct
from typing import Final

from app.core.activity import Details, Status, terms
from app.core.idempotency import Record
from app.core.transaction import Row

COPY_ROWS: Final = b"COPY transactions FROM STDIN (FORMAT binary)"
COPY_RECORDS: Final = b"COPY idempotency FROM STDIN (FORMAT binary)"

# So many are packed in a turn of the event loop: a millisecond, where they are plain.
_TURN_ROWS: Final = 1024

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_NO_DETAILS: Final = _NULL * 6

# The fields that every row has, each behind its length: id, timestamp_ms, amount_units, and of the
# currency the length alone.
_pack_head: Final = Struct(">hi16siqiqi").pack
_pack_length: Final = Struct(">i").pack
_pack_record: Final = Struct(">hi16si16si").pack
_pack_created: Final = Struct(">iq").pack
_pack_node: Final = Struct(">ii").pack
_ROW_FIELDS: Final = 12
_RECORD_FIELDS: Final = 4

_JSONB_VERSION: Final = b"\x01"
# No positions: a word is there, or it is not.
_TERM_END: Final = b"\0\0\0"

# What jsonb would give back otherwise, or not take: numbers that a double has no room for or an
# exponent, a zero below zero, the character NUL. To take a text for one of them costs some room.
_NOT_OF_JSONB: Final = re.compile(rb"[0-9][eE]|-0|[0-9]{16}|\\u0000")
_NUL_ESCAPE: Final = re.compile(rb"(\\\\)|\\u0000")


def packed_rows(rows: Sequence[Row], node: int) -> Iterator[bytes]:
    """Rows that a node keeps, in pieces that each take a turn of the event loop."""
    end = _pack_node(4, node)
    plain_end = _NO_DETAILS + end
    last = max(len(rows) - 1, 0) // _TURN_ROWS
    for number in range(last + 1):
        turn = rows[number * _TURN_ROWS : (number + 1) * _TURN_ROWS]
        parts = chain.from_iterable(map(_row_parts, turn, repeat(end), repeat(plain_end)))
        yield b"".join((b"" if number else _HEADER, *parts, b"" if number < last else _TRAILER))


def packed_records(records: Sequence[Record]) -> Iterator[bytes]:
    """Records in the order of their digests, in which no two processes wait for each other."""
    parts = [_HEADER]
    for record in sorted(records, key=lambda record: record.key.digest):
        key, packed = record.key, record.packed
        parts.append(_pack_record(_RECORD_FIELDS, 16, key.digest, 16, key.fingerprint, len(packed)))
        parts.append(packed)
        parts.append(_pack_created(8, record.created_ms))
    parts.append(_TRAILER)
    yield b"".join(parts)


def _row_parts(row: Row, end: bytes, plain_end: bytes) -> tuple[bytes, ...]:
    fact = row.transaction
    currency = fact.currency.encode()
    head = _pack_head(
        _ROW_FIELDS, 16, row.id.to_bytes(16), 8, fact.timestamp_ms, 8, fact.amount_units, len(currency)
    )
    user = _NULL if fact.user_id is None else _field(fact.user_id.encode())
    return (head, currency, user, plain_end if fact.details is None else _details(fact.details) + end)


def _details(details: Details) -> bytes:
    kind, product, status = details.transaction_type, details.product, details.status
    metadata = details.metadata
    is_exact = _NOT_OF_JSONB.search(metadata) is None
    readable = metadata if is_exact else _NUL_ESCAPE.sub(_without_nul, metadata)
    found = [term.encode() for term in terms(details)]
    return b"".join(
        (
            _NULL if kind is None else _field(kind.value.encode()),
            _NULL if product is None else _field(product.value.encode()),
            _NULL if status is Status.COMPLETED else _field(status.value.encode()),
            _field(_JSONB_VERSION + readable),
            _NULL if is_exact else _field(metadata),
            _field(_pack_length(len(found)) + b"".join(term + _TERM_END for term in found)),
        )
    )


def _without_nul(found: re.Match[bytes]) -> bytes:
    return found[1] or b"\\ufffd"


def _field(value: bytes) -> bytes:
    return _pack_length(len(value)) + value
