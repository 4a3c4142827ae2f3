"""What PostgreSQL sums up: a span of time by slot, and what one user has in it."""

from typing import Any, Final

from psycopg import AsyncConnection

from app.core.summary import Figures, Summary
from app.store.base import Tallies, Tally
from app.store.postgres_hold import value_of
from app.store.postgres_session import EPOCH

# A window of an hour may hold as much as a hundred million rows.
TALLY_SECONDS: Final = 600

# A deletion waits for it, so that the epoch is that of all rows that are found.
_HOLD_OFF_DELETION: Final = "LOCK TABLE transactions IN ACCESS SHARE MODE"

_TALLY: Final = """
    SELECT currency, slot_ms, summed.count, total, lowest, highest, name FROM (
        SELECT currency, timestamp_ms / %(slot)s * %(slot)s AS slot_ms, node, count(*),
               sum(amount_units)::text total, min(amount_units) lowest, max(amount_units) highest
        FROM transactions WHERE timestamp_ms BETWEEN %(from)s AND %(to)s GROUP BY slot_ms, currency, node
    ) summed JOIN nodes ON number = node
"""
_TALLY_OF_NODE: Final = _TALLY.replace(
    "WHERE", "WHERE node = (SELECT number FROM nodes WHERE name = %(node)s) AND"
)

USER_FIGURES: Final = """
    SELECT currency, count(*), sum(amount_units)::text, min(amount_units), max(amount_units)
    FROM transactions WHERE user_id = %s AND timestamp_ms >= %s GROUP BY currency
"""


async def tally(
    connection: AsyncConnection[Any],
    from_ms: int,
    to_ms: int,
    resolution_ms: int,
    node: str | None,
    nameless: str | None,
) -> Tallies:
    """Sum up what one node or all have kept, as a transaction of its own.

    `nameless`: what a node without a name is to be called.
    """
    span = {"from": from_ms, "to": to_ms, "slot": resolution_ms, "node": node}
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{TALLY_SECONDS}s'")
        await connection.execute(_HOLD_OFF_DELETION)
        epoch = await value_of(connection, EPOCH)
        cursor = await connection.execute(_TALLY if node is None else _TALLY_OF_NODE, span)
        return Tallies(
            epoch,
            [
                Tally(currency, slot_ms, Summary(count, int(total), lowest, highest), name or nameless)
                async for currency, slot_ms, count, total, lowest, highest, name in cursor
            ],
        )


async def user_figures(
    connection: AsyncConnection[Any], user_id: str, from_ms: int, currency: str | None
) -> Figures:
    """Sum up what a user has since then. One currency costs what all do: they share the index."""
    cursor = await connection.execute(USER_FIGURES, (user_id, from_ms))
    return Figures.joining(
        (code, Summary(count, int(total), lowest, highest))
        for code, count, total, lowest, highest in sorted(await cursor.fetchall())
        if currency in (None, code)
    )
