"""Real transactions in the feed: none is missing or altered, and searches find them by their names.

By default these are the sample's. MILLRACE_FEED_DATA names a larger file of the same form, as does one
beside the repository where it is set to 1.
"""

import gzip
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from app.core.activity import texts
from app.core.words import words
from loadtest.replay import main
from tests.support.ledger_file import sqlite_url
from tests.support.plain_http import plain_client
from tests.support.process import ServiceProcess

ROOT: Final = Path(__file__).parents[2]
SAMPLE: Final = ROOT / "loadtest" / "data" / "transactions.ndjson"
WHOLE: Final = ROOT.parent / "shared" / "data" / "transactions.ndjson.gz"
NAMED: Final = os.environ.get("MILLRACE_FEED_DATA", "")
DATA: Final = {"": SAMPLE, "1": WHOLE}.get(NAMED, Path(NAMED))

Item = dict[str, Any]
Totals = dict[tuple[str, str], tuple[int, Decimal]]


def read_data() -> list[Item]:
    opener = gzip.open if DATA.suffix == ".gz" else open
    with opener(DATA, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def paged(client: httpx.Client, **query: str) -> Iterator[Item]:
    """All that the feed answers to a question."""
    parameters = {**query, "limit": "100"}
    while True:
        answer = client.get("/transactions", params=parameters)
        assert answer.status_code == 200, answer.text
        page = json.loads(answer.text, parse_float=Decimal)
        yield from page["items"]
        if page["next_cursor"] is None:
            return
        parameters["cursor"] = page["next_cursor"]


def totals(items: Iterator[Item] | list[Item], *names: str) -> Totals:
    """Number and sum of amounts by some fields."""
    found: dict[Any, tuple[int, Decimal]] = defaultdict(lambda: (0, Decimal(0)))
    for item in items:
        key = tuple(item[name] for name in names)
        count, amount = found[key]
        found[key] = count + 1, amount + Decimal(item["amount"])
    return dict(found)


def told(row: Item) -> list[str]:
    """All text that a row's metadata has in the feed."""
    own = [row[name] for name in ("transaction_type", "status", "product") if name in row]
    return [*texts(row.get("metadata", {})), *own]


def searched_names(rows: list[Item]) -> list[str]:
    """The merchant with the most rows, one in the middle, and one that is spelled with signs."""
    names = Counter(row.get("metadata", {}).get("merchant_name") for row in rows)
    del names[None]
    ranked = [name for name, _ in names.most_common()]
    signed = next(name for name in ranked if "*" in name or "'" in name)
    return [ranked[0], ranked[len(ranked) // 2], signed]


def test_the_feed_has_every_row_and_finds_it_by_its_merchant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not DATA.exists():
        pytest.skip(f"{DATA} is not on this machine")
    rows = read_data()
    environment = {
        "DATABASE_URL": sqlite_url(tmp_path / "ledger.db"),
        "ALLOW_NEGATIVE_AMOUNTS": "true",
    }
    with ServiceProcess(environment) as service:
        url = service.serving()
        status = main([str(DATA), "--feed", "--url", url, "--connections", "32"])
        said = capsys.readouterr().out
        assert status == 0, said
        assert "\nfeed                 agree: all rows" in said
        with plain_client(url) as client:
            assert totals(paged(client), "currency") == totals(rows, "currency")
            ranked = [user for user, _ in Counter(row["user_id"] for row in rows).most_common()]
            for user in (*ranked[:3], ranked[len(ranked) // 2], ranked[-1]):
                own = [row for row in rows if row["user_id"] == user]
                assert totals(paged(client, user_id=user), "user_id", "currency") == totals(
                    own, "user_id", "currency"
                )
            for name in searched_names(rows):
                sought = set(words(name))
                wanted = [
                    row for row in rows if sought <= {w for text in told(row) for w in words(text)}
                ]
                found = list(paged(client, search_query=name))
                assert totals(found, "user_id", "currency") == totals(wanted, "user_id", "currency"), (
                    name
                )
                named = [item for item in found if item["metadata"].get("merchant_name") == name]
                assert len(named) == sum(
                    row.get("metadata", {}).get("merchant_name") == name for row in rows
                )
                assert named
