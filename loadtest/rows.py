"""Rows of a file of transactions, read one at a time and never held together in memory.

A row is sent in one of two forms: as if it happened now, of which only what statistics are about is
sent; or as history, with its own time and all that its source says of it.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec

LINE_BYTES_MAX: Final = 1024 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"


class UnreadableError(Exception):
    """The file, or one line of it, cannot be read; the message is one line that says which."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """One transaction to send: its JSON without a timestamp, and the literals to count it by."""

    fields: bytes
    amount: bytes
    currency: bytes

    def body(self, timestamp_ms: int) -> bytes:
        """The request's body, happening at this epoch millisecond."""
        return b'{"timestamp":%d%b}' % (timestamp_ms, self.fields)


class HistoryRow(Row, frozen=True, gc=False):
    """One transaction to send as history: `fields` are all of its JSON. `user_id` is as it is read."""

    user_id: str | int | None

    def body(self, timestamp_ms: int) -> bytes:
        """The request's body; it happened when it says, not now."""
        return self.fields


class _Line(msgspec.Struct, frozen=True, gc=False):
    """The fields that are sent, each kept as it is written, so that no amount is rounded."""

    user_id: msgspec.Raw = msgspec.Raw()
    amount: msgspec.Raw = msgspec.Raw()
    currency: msgspec.Raw = msgspec.Raw()


class _HistoryLine(_Line, frozen=True, gc=False):
    """All that a source says of a transaction."""

    timestamp: msgspec.Raw = msgspec.Raw()
    transaction_type: msgspec.Raw = msgspec.Raw()
    product: msgspec.Raw = msgspec.Raw()
    status: msgspec.Raw = msgspec.Raw()
    metadata: dict[str, msgspec.Raw] = {}


_LINE: Final = msgspec.json.Decoder(_Line)
_HISTORY_LINE: Final = msgspec.json.Decoder(_HistoryLine)
_USER_ID: Final = msgspec.json.Decoder(str | int | None)


def open_rows(path: Path) -> BinaryIO:
    """Open NDJSON, plain or gzip, told apart by its first bytes."""
    try:
        file = path.open("rb")
        if file.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC):
            unpacked = gzip.GzipFile(fileobj=file)
            # To be closed with it, as one that it had opened itself.
            unpacked.myfileobj = file  # type: ignore[assignment]  # reads as a FileIO does
            return cast(BinaryIO, unpacked)
    except OSError as problem:
        raise UnreadableError(f"{path}: {(problem.strerror or str(problem)).lower()}") from None
    return file


def read_rows(file: BinaryIO, rows_max: int | None = None, *, as_history: bool = False) -> Iterator[Row]:
    """Read rows until the file or `rows_max` ends; blank lines are no rows but are numbered.

    Rows are HistoryRows where they are read as history.
    """
    read = _read_history_row if as_history else _read_row
    number = rows = 0
    while rows_max is None or rows < rows_max:
        number += 1
        try:
            line = file.readline(LINE_BYTES_MAX + 1)
            if not line:
                return
            if line.isspace():
                continue
            if len(line) > LINE_BYTES_MAX:
                raise ValueError(f"longer than {LINE_BYTES_MAX} bytes")
            row = read(line)
        except (OSError, EOFError, zlib.error, ValueError, RecursionError) as problem:
            raise UnreadableError(f"line {number}: {problem}") from None
        rows += 1
        yield row


def _read_row(line: bytes) -> Row:
    line.decode()  # A field that is not sent is skipped below without a look at its encoding.
    found = _LINE.decode(line)
    return Row(_plain_fields(found), bytes(found.amount), bytes(found.currency))


def _read_history_row(line: bytes) -> HistoryRow:
    line.decode()
    found = _HISTORY_LINE.decode(line)
    fields = _plain_fields(found)
    metadata = dict(found.metadata)
    # A card is what was bought from a merchant; other sources say in words of their own what it was.
    if "merchant_name" in metadata and not found.transaction_type:
        fields += b',"transaction_type":"card"'
    # Their words are none of the feed's.
    for name, literal in (
        ("source_type", found.transaction_type),
        ("source_status", found.status),
        ("description", found.product),
    ):
        if literal:
            metadata.setdefault(name, literal)
    if found.timestamp:
        fields += b',"timestamp":%b' % found.timestamp
    return HistoryRow(
        b'{"metadata":%b%b}' % (msgspec.json.encode(metadata), fields),
        bytes(found.amount),
        bytes(found.currency),
        _USER_ID.decode(found.user_id) if found.user_id else None,
    )


def _plain_fields(found: _Line) -> bytes:
    """The fields that both forms have, each behind a comma."""
    return b"".join(
        b',"%b":%b' % (name, literal)
        for name, literal in (
            (b"user_id", found.user_id),
            (b"amount", found.amount),
            (b"currency", found.currency),
        )
        if literal
    )
