"""The exchange over a real Redis that loses what it was told, or sends it slowly."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.exchange.base import ExchangeFailed
from app.exchange.redis import STREAM, RedisExchange
from tests.support.redis import RedisServer, needs_redis
from tests.support.redis import redis_server as redis

pytestmark = needs_redis
__all__ = ["redis"]

KEPT_MS = 60_000
WAIT_SECONDS = 20.0
BACKLOG = 100
MESSAGE_BYTES = 30_000


def test_what_is_deleted_is_missed_at_once_by_who_told_it_and_who_had_not_heard_it(
    redis: RedisServer,
) -> None:
    """As by an eviction: no connection breaks."""

    async def main() -> None:
        a, b = RedisExchange(redis.url, KEPT_MS), RedisExchange(redis.url, KEPT_MS)
        assert not (await a.swap(b"a1")).has_lost
        assert (await b.swap(b"b1")).messages == [b"a1", b"b1"]
        assert (await a.swap(b"a2")).messages == [b"b1", b"a2"]
        with redis.client() as client:
            client.flushall()
        assert (await b.swap(b"b2")).has_lost
        lost = await a.swap(b"a3")
        assert (lost.has_lost, lost.has_more) == (True, True)
        again = await a.swap(b"a4")
        assert (again.messages, again.has_lost) == ([b"b2", b"a3", b"a4"], False)
        await a.close()
        await b.close()

    asyncio.run(main())


def test_what_does_not_come_in_time_comes_in_parts(redis: RedisServer) -> None:
    """Otherwise a slow line would have the same again and again, and nothing of it ever."""

    async def main() -> None:
        told = [b"%d" % number + b" " * MESSAGE_BYTES for number in range(BACKLOG)]
        with redis.client() as client:
            client.flushall()
            for message in told:
                client.xadd(STREAM, {"b": message})
        async with asyncio.timeout(WAIT_SECONDS), slow_line(redis.port, 5_000_000) as port:
            late = RedisExchange(f"redis://127.0.0.1:{port}/0", KEPT_MS)
            heard: list[bytes] = []
            failures = 0
            has_more = True
            while has_more:
                try:
                    brought = await late.swap(b"late")
                except ExchangeFailed:
                    failures += 1
                else:
                    heard += brought.messages
                    has_more = brought.has_more
            await late.close()
        assert [message for message in heard if message != b"late"] == told
        assert failures

    asyncio.run(main())


def test_what_is_wrong_is_said_and_not_what_was_sent(redis: RedisServer) -> None:
    async def reason(url: str) -> str:
        exchange = RedisExchange(url, KEPT_MS)
        try:
            with pytest.raises(ExchangeFailed) as failure:
                await exchange.swap(b"told")
        finally:
            await exchange.close()
        return str(failure.value)

    async def main() -> None:
        wrong = "ResponseError: DB index is out of range"
        assert await reason(redis.url.replace("/0", "/99")) == wrong
        with redis.client() as client:
            client.set(STREAM, "no stream")
        wrong_type = "WRONGTYPE Operation against a key holding the wrong kind of value"
        assert await reason(redis.url) == f"ResponseError: {wrong_type}"
        for answer, expected in (
            (b":1\r\n", "AttributeError"),
            (
                b"-ERR unknown command 'HELLO', with args beginning with: 'AUTH' 'secret'\r\n",
                "unknown command 'HELLO",
            ),
            (b"$99999999999999\r\n", ""),
        ):
            async with answering(answer) as port:
                found = await reason(f"redis://:secret@127.0.0.1:{port}/0")
            assert expected in found
            assert "secret" not in found

    asyncio.run(main())


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """The port of a server that answers every command alike."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(answer * data.count(b"*"))
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def slow_line(port: int, bytes_per_second: int) -> AsyncIterator[int]:
    """The port of a proxy whose answers take their time."""

    handlers: list[asyncio.Task[None]] = []

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pace: float) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await asyncio.sleep(len(data) * pace)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, asked = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(passed(reader, asked, 0), passed(answers, writer, 1 / bytes_per_second))

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.create_task(connect(reader, writer)))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
    await asyncio.gather(*handlers)
