"""The trace a request belongs to, where its caller says so (W3C Trace Context, `traceparent`)."""

import re
from collections.abc import Iterable
from typing import Final

HEADER: Final = b"traceparent"

# Version 00 ends here; a later one may say more behind another hyphen, and ff is none.
_PARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?"
)


def trace_id(value: bytes) -> bytes | None:
    """The 32 digits that name a trace; None where the header is not exactly one."""
    found = _PARENT.fullmatch(value)
    if found is None or (found[2] is not None and value.startswith(b"00")):
        return None
    return found[1]


def trace_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """That of a request: none is made up, and of two nobody knows which one is meant."""
    values = [value for name, value in headers if name == HEADER]
    return trace_id(values[0]) if len(values) == 1 else None
