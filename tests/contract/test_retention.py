"""A service forgets what it has kept for the days it was told."""

from pathlib import Path
from queue import SimpleQueue

import pytest

from app.ledger import maintenance
from app.settings import Settings
from app.store.base import MemoryStore
from app.store.sqlite import SQLiteStore
from tests.support.ledger_file import sqlite_url
from tests.support.thread import WAIT_SECONDS, Clock, serve

NOW_MS = 1_767_323_045_678
DAY_MS = 86_400_000
FEED = "/api/v1/transactions"


@pytest.mark.parametrize("kind", [MemoryStore, SQLiteStore])
def test_a_transaction_is_gone_after_so_many_days(
    kind: type[MemoryStore | SQLiteStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: SimpleQueue[int] = SimpleQueue()
    trim = kind.trim

    async def noted(self: MemoryStore | SQLiteStore, before_ms: int, rows_max: int) -> bool:
        has_more = await trim(self, before_ms, rows_max)  # type: ignore[arg-type]  # of that kind
        looks.put(before_ms)
        return has_more

    def await_look(now_ms: int) -> None:
        while looks.get(timeout=WAIT_SECONDS) != now_ms - 30 * DAY_MS:
            pass

    monkeypatch.setattr(kind, "trim", noted)
    monkeypatch.setattr(maintenance, "_INTERVAL_SECONDS", 0.001)
    url = "memory://" if kind is MemoryStore else sqlite_url(tmp_path / "ledger.db")
    clock = Clock(NOW_MS)
    with serve(Settings(database_url=url, retention_days=30), clock) as service:
        client = service.client
        # What happened long ago is as old as its keeping.
        body = {"user_id": "alice", "amount": 1, "timestamp": "2001-01-01"}
        kept = client.post(FEED, json=body).json()
        clock.now_ms += 30 * DAY_MS
        await_look(clock.now_ms)
        assert client.get(f"{FEED}/{kept['id']}").status_code == 200
        later = client.post(FEED, json=body).json()
        clock.now_ms += DAY_MS
        await_look(clock.now_ms)
        assert client.get(f"{FEED}/{kept['id']}").status_code == 404
        items = client.get(FEED, params={"user_id": "alice"}).json()["items"]
        assert [item["id"] for item in items] == [later["id"]]
    assert service.failures == []
