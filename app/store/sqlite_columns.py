"""What is kept of a row and a record, column by column, as `sqlite_statements` has them."""

import asyncio
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Final

from app.core.activity import Details, terms
from app.core.idempotency import Record
from app.core.transaction import Row

DetailColumns = tuple[str | None, ...]
PLAIN: Final = (None,) * 5
"""Those of a row without details."""

# Words are looked for in the metadata of all that has gathered, for some 10 us each, or some
# milliseconds where it is as long and as odd as it may be: the event loop turns in between.
_TURN_SECONDS: Final = 0.002


async def details_columns(rows: Sequence[Row]) -> Mapping[int, DetailColumns]:
    """The columns of those rows that have details, by their ids."""
    found: dict[int, DetailColumns] = {}
    turn_ends = monotonic() + _TURN_SECONDS
    for row in rows:
        details = row.transaction.details
        if details is not None:
            found[row.id] = _detail_columns(details)
            if monotonic() > turn_ends:
                await asyncio.sleep(0)
                turn_ends = monotonic() + _TURN_SECONDS
    return found


def record_columns(record: Record) -> tuple[bytes, bytes, bytes, int]:
    """The columns of an answer that is remembered."""
    return record.key.digest, record.key.fingerprint, record.packed, record.created_ms


def _detail_columns(details: Details) -> DetailColumns:
    kind, product = details.transaction_type, details.product
    return (
        None if kind is None else kind.value,
        None if product is None else product.value,
        details.status.value,
        details.metadata.decode(),
        " ".join(terms(details)),
    )
