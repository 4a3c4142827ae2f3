"""How an engine finds what the feed is asked for: the statement, and the engine's own plan of it."""

from collections.abc import Sequence
from pathlib import Path

import apsw

from app.core.question import Portion, Question
from app.settings import SQLITE
from app.store.sqlite_question import find


async def explain(url: str, question: Question, portions: Sequence[Portion]) -> list[str]:
    """The plan of a question's first page, a line each; of a server, those of some portions."""
    if url.startswith(SQLITE):
        return _explain_sqlite(Path(url.removeprefix(SQLITE)), question)
    return await _explain_postgres(url, question, portions)


async def settle(url: str) -> None:
    """Have a server look at what was filled in, as it does by itself within a minute or two."""
    if url.startswith(SQLITE):
        return
    from psycopg import AsyncConnection

    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("VACUUM (ANALYZE) transactions")


async def _explain_postgres(url: str, question: Question, portions: Sequence[Portion]) -> list[str]:
    """Every statement that may be tried, and its plan; a plan that was printed is not repeated."""
    from psycopg import AsyncConnection

    from app.store.postgres_feed import page_statements

    lines: list[str] = []
    printed: set[tuple[str, ...]] = set()
    async with await AsyncConnection.connect(url, prepare_threshold=None) as connection:
        for portion in portions:
            for statement in page_statements(question, portion):
                cursor = await connection.execute(
                    f"EXPLAIN (ANALYZE off, COSTS off) {statement.text}".encode(), statement.parameters
                )
                plan = tuple(f"  {line}" for (line,) in await cursor.fetchall())
                if plan not in printed:
                    printed.add(plan)
                    values = "; ".join(map(str, statement.parameters))
                    lines += [f"{' '.join(statement.text.split())} -- {values}", *plan]
    return lines


def _explain_sqlite(path: Path, question: Question) -> list[str]:
    index = apsw.Connection(str(path) + "-feed", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        index.execute("ATTACH ? AS ledger", (f"{path.absolute().as_uri()}?mode=ro",))
        statement, parameters = find(question, None)
        plan = index.execute(
            f"EXPLAIN QUERY PLAN {statement} ORDER BY position DESC LIMIT 20", parameters
        ).fetchall()
        values = "; ".join(map(str, parameters))
        return [f"{statement} -- {values}", *(f"  {line}" for *_, line in plan)]
    finally:
        index.close()
