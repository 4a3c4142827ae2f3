"""Requests cut anywhere, one behind another: every answer comes, in the order of the requests."""

import asyncio
import os
import random
from collections.abc import Sequence
from functools import partial

import pytest
from uvicorn.server import ServerState

from app.core.idempotency import Record
from app.core.transaction import Row
from app.main import build_service
from app.server.serve import server_config
from app.settings import Settings, Switch
from app.store.base import MemoryStore
from app.web.protocol import Protocol
from tests.support.conversation import CLOSING, ORDINARY, TURNS_MAX, pieces
from tests.support.thread import Clock
from tests.support.wire import NOW_MS, Answers, Wire

CASES = int(os.environ.get("MILLRACE_FRAMING_CASES", "800"))


class SlowStore(MemoryStore):
    """Takes its time over a commit, now and then."""

    def __init__(self, choose: random.Random) -> None:
        super().__init__()
        self._choose = choose

    async def append(self, rows: Sequence[Row], records: Sequence[Record] = ()) -> int:
        for _ in range(self._choose.choice((0, 0, 1, 5))):
            await asyncio.sleep(0)
        return await super().append(rows, records)


def conversation(choose: random.Random) -> tuple[bytes, list[int], list[bytes | None]]:
    """Requests one behind another, the statuses to expect, and the request ids where given."""
    requests = [choose.choice(ORDINARY) for _ in range(choose.randrange(1, 10))]
    if choose.random() < 0.3:
        requests.append(choose.choice(CLOSING))
        # Nothing behind a request that closes is answered.
        trailer = choose.choice(ORDINARY)[0] if choose.random() < 0.3 else b""
    else:
        trailer = b""
    sent, statuses, request_ids = b"", [], []
    for number, (raw, status) in enumerate(requests):
        request_id = None
        if choose.random() < 0.4 and b"host: x" in raw and b"bad header" not in raw:
            request_id = b"request-%d" % number
            raw = raw.replace(b"host: x", b"host: x\r\nX-Request-ID: %s" % request_id, 1)
        sent += raw
        statuses.append(status)
        request_ids.append(request_id)
    return sent + trailer, statuses, request_ids


async def converse(connect: partial[Protocol], choose: random.Random) -> None:
    """One connection from its opening to the last answer."""
    sent, statuses, request_ids = conversation(choose)
    wire = Wire(can_end=choose.random() < 0.5)
    wire.protocol = connect()
    wire.protocol.connection_made(wire)
    answers = Answers()
    for piece in pieces(choose, sent):
        if choose.random() < 0.5:
            await asyncio.sleep(0)
        for _ in range(TURNS_MAX):
            if not wire.is_paused or wire.is_closing():
                break
            await asyncio.sleep(0)
        if not wire.is_closing() and piece:
            wire.protocol.data_received(piece)
    for _ in range(TURNS_MAX):
        if wire.written:
            written, wire.written = wire.written, b""
            answers.read(written)
        if len(answers.statuses) >= len(statuses):
            break
        await asyncio.sleep(0)
    assert answers.statuses == statuses
    for found, expected, status in zip(answers.request_ids, request_ids, statuses, strict=True):
        if expected is not None and status != 400:
            assert found == expected
        assert status < 400 or found
    wire.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize("lane", list(Switch))
def test_answers_keep_the_order_of_their_requests_wherever_the_bytes_are_cut(
    lane: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.SystemRandom().randrange(2**32)

    async def main() -> None:
        settings = Settings(database_url="memory://", fast_lane=lane)
        monkeypatch.setattr("app.main.build_store", lambda _, **__: SlowStore(random.Random(seed)))
        service = build_service(settings, pytest.fail, Clock(NOW_MS))
        await service.ledger.open()
        config = server_config(settings, service)
        config.load()
        connect = partial(Protocol, config, ServerState(), {}, fast_lane=service.fast_lane)
        for case in range(CASES):
            try:
                await converse(connect, random.Random(seed + case))
            except BaseException:
                print(f"seed {seed}, case {case}")
                raise
        await service.ledger.close()

    asyncio.run(main())
