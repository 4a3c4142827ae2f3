"""How an engine finds what the feed is asked for: the statement, and the engine's own plan of it."""

from pathlib import Path

import apsw

from app.core.question import Question
from app.settings import SQLITE
from app.store.sqlite_question import find


async def explain(url: str, question: Question) -> list[str]:
    """The plan of a question's first page, a line each."""
    return _explain_sqlite(Path(url.removeprefix(SQLITE)), question)


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
