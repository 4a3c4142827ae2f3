"""Any bytes at all, on both lanes: an answer that is described, or a close; never an error of ours.

Cases follow from a seed, which is printed where one fails: MILLRACE_FUZZ_SEED repeats it.
"""

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import pytest
import structlog
from uvicorn.server import ServerState

from app.main import build_service
from app.server.serve import server_config
from app.settings import Settings, Switch
from app.web.catalogue import CATALOGUE
from app.web.protocol import Protocol
from app.web.schemas import ProblemDetails
from tests.support.broken import SEEDS, mutated, transaction
from tests.support.conversation import ORDINARY, TURNS_MAX, pieces
from tests.support.thread import Clock
from tests.support.wire import NOW_MS, Answers, Wire

BYTES_CASES = int(os.environ.get("MILLRACE_FUZZ_BYTES", "800"))
BODIES_CASES = int(os.environ.get("MILLRACE_FUZZ_BODIES", "1500"))
SEED = int(os.environ.get("MILLRACE_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
Connect = Callable[[], Protocol]


class Replies(Answers):
    """Reads bodies, too."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.bodies += [self._body] * (len(self.statuses) - len(self.bodies))
        self._body = b""


def assert_in_form(replies: Replies) -> None:
    """Whether every answer is one that is described."""
    for status, body in zip(replies.statuses, replies.bodies, strict=True):
        assert status < 500, body
        if status >= 400:
            details = msgspec.json.decode(body, type=ProblemDetails)
            assert details.status == status == CATALOGUE[details.code].status
        elif body:
            msgspec.json.decode(body)


async def attack(connect: Connect, choose: random.Random) -> None:
    """Some right requests, then bytes that are not, then the end of the client's side."""
    right = [choose.choice(ORDINARY) for _ in range(choose.choice((0, 0, 1, 3)))]
    sent = b"".join(raw for raw, _ in right)
    for _ in range(choose.choice((1, 1, 2))):
        sent += mutated(choose, choose.choice(SEEDS))
    wire = Wire()
    wire.protocol = connect()
    wire.protocol.connection_made(wire)
    for piece in pieces(choose, sent):
        for _ in range(choose.choice((0, 1, 12))):
            await asyncio.sleep(0)
        while wire.is_paused and not wire.is_closing():
            await asyncio.sleep(0)
        if piece and not wire.is_closing():
            wire.protocol.data_received(piece)
    if not wire.is_closing():
        wire.protocol.eof_received()
    for _ in range(TURNS_MAX):
        if wire.is_closing():
            break
        await asyncio.sleep(0)
    assert wire.is_closing()
    replies = Replies()
    replies.read(wire.written)
    assert replies.statuses[: len(right)] == [status for _, status in right]
    assert_in_form(replies)
    await asyncio.sleep(0)


async def post_bodies(connect: Connect, choose: random.Random) -> None:
    """Eight requests that are whole: each is answered, and the connection goes on."""
    wire = Wire()
    wire.protocol = connect()
    wire.protocol.connection_made(wire)
    requests = [transaction(choose) for _ in range(8)]
    for request in requests:
        wire.protocol.data_received(request)
    replies = Replies()
    for _ in range(TURNS_MAX):
        if wire.written:
            written, wire.written = wire.written, b""
            replies.read(written)
        if len(replies.statuses) == len(requests):
            break
        await asyncio.sleep(0)
    assert len(replies.statuses) == len(requests)
    assert not wire.is_closing()
    assert set(replies.statuses) <= {200, 201, 204, 400, 409, 422}
    assert_in_form(replies)
    wire.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize("lane", list(Switch))
@pytest.mark.parametrize(
    ("converse", "conversations"), [(attack, BYTES_CASES), (post_bodies, BODIES_CASES // 8)]
)
def test_whatever_is_sent_is_answered_in_form_or_closed(
    converse: Callable[[Connect, random.Random], Awaitable[None]],
    conversations: int,
    lane: Switch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> list[dict[str, Any]]:
        unforeseen: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unforeseen.append(context))
        settings = Settings(database_url="memory://", fast_lane=lane)
        service = build_service(settings, pytest.fail, Clock(NOW_MS))
        await service.ledger.open()
        config = server_config(settings, service)
        config.load()
        connect = partial(Protocol, config, ServerState(), {}, fast_lane=service.fast_lane)
        for case in range(conversations):
            try:
                await converse(connect, random.Random(SEED + case))
                assert unforeseen == []
            except BaseException:
                print(f"MILLRACE_FUZZ_SEED={SEED + case}")
                raise
        await service.ledger.close()
        return unforeseen

    with structlog.testing.capture_logs() as entries:
        assert asyncio.run(main()) == []
    assert [entry for entry in entries if entry["log_level"] in ("error", "critical")] == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
