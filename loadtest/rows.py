"""Rows of a file of transactions, read one at a time and never held together in memory."""

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


class _Line(msgspec.Struct, frozen=True, gc=False):
    """The fields that are sent, each kept as it is written, so that no amount is rounded."""

    user_id: msgspec.Raw = msgspec.Raw()
    amount: msgspec.Raw = msgspec.Raw()
    currency: msgspec.Raw = msgspec.Raw()


_LINE: Final = msgspec.json.Decoder(_Line)


def open_rows(path: Path) -> BinaryIO:
    """Open NDJSON, plain or gzip, told apart by its first bytes."""
    try:
        file = path.open("rb")
        if file.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC):
            return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    except OSError as problem:
        raise UnreadableError(f"{path}: {(problem.strerror or str(problem)).lower()}") from None
    return file


def read_rows(file: BinaryIO, rows_max: int | None = None) -> Iterator[Row]:
    """Read rows until the file or `rows_max` ends; blank lines are no rows but are numbered."""
    number = rows = 0
    while rows_max is None or rows < rows_max:
        number += 1
        try:
            line = file.readline(LINE_BYTES_MAX + 1)
            if not line:
                return
            if line.isspace():
                continue
            row = _read_row(line)
        except (OSError, EOFError, zlib.error, ValueError, RecursionError) as problem:
            raise UnreadableError(f"line {number}: {problem}") from None
        rows += 1
        yield row


def _read_row(line: bytes) -> Row:
    if len(line) > LINE_BYTES_MAX:
        raise ValueError(f"longer than {LINE_BYTES_MAX} bytes")
    line.decode()  # A field that is not sent is skipped below without a look at its encoding.
    found = _LINE.decode(line)
    fields = b"".join(
        b',"%b":%b' % (name, literal)
        for name, literal in (
            (b"user_id", found.user_id),
            (b"amount", found.amount),
            (b"currency", found.currency),
        )
        if literal
    )
    return Row(fields, bytes(found.amount), bytes(found.currency))
