"""The client against scripted answers: what is sent again, how often, when, and what never."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from app.client.gathering import Gathering
from app.client.patience import Patience
from app.client.service import Service
from app.client.values import (
    LATE,
    FateUnknown,
    ItemRejected,
    NotNow,
    NotSent,
    Posted,
    Refused,
    Transaction,
)

ONE = Transaction(amount=Decimal("0.10"), timestamp=1_767_323_045_678, currency="EUR", user_id="u")


def answer(status: int, body: bytes = b"", *headers: bytes) -> bytes:
    head = [b"HTTP/1.1 %d x" % status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join((*head, b"", body))


def problem(status: int, code: str, *headers: bytes) -> bytes:
    body = b'{"title":"t","status":%d,"code":"%b","detail":"d"}' % (status, code.encode())
    return answer(status, body, *headers)


KEPT = answer(201, b'{"id":"i"}')
LOST = b""
LIMITED = problem(429, "rate_limited", b"retry-after: 3")
REFUSED = problem(503, "store_refused", b"retry-after: 1")
DRAINING = problem(503, "not_ready", b"retry-after: 1")


class Script:
    """A server that answers what is written, in this order; LOST closes instead."""

    def __init__(self, *answers: bytes) -> None:
        self.left = list(answers)
        self.requests: list[tuple[dict[bytes, bytes], bytes]] = []
        self.slept: list[float] = []
        self.now = 0.0
        self._tasks: list[asyncio.Task[None] | None] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError):
            await self._answer(reader, writer)
        writer.close()
        await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.lower().split(b"\r\n")[1:-2]
            headers = dict(line.split(b": ", 1) for line in lines)
            body = await reader.readexactly(int(headers.get(b"content-length", 0)))
            self.requests.append((headers, body))
            told = self.left.pop(0)
            writer.write(told)
            if not told:
                break

    def run(self, use: Callable[[Service], Awaitable[object]], **bounds: float) -> object:
        """What `use` comes to, or the error it ends with."""

        async def main() -> object:
            server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
            patience = Patience(
                attempts_max=int(bounds.get("attempts_max", 8)),
                total_seconds=bounds.get("total_seconds", 30.0),
                clock=lambda: self.now,
                sleep=self.sleep,
                chance=lambda: 0.5,
            )
            port = server.sockets[0].getsockname()[1]
            try:
                async with Service(
                    f"http://127.0.0.1:{port}", patience=patience, make_key=lambda: "made", token="t"
                ) as service:
                    return await use(service)
            except (NotSent, FateUnknown, Refused) as error:
                return error
            finally:
                server.close()
                await asyncio.gather(*filter(None, self._tasks))

        return asyncio.run(main())


@pytest.mark.parametrize(
    ("answers", "slept"),
    [
        ([KEPT], []),
        ([LIMITED, KEPT], [3.05]),
        ([REFUSED, DRAINING, KEPT], [1.05, 1.1]),
        ([LOST, LOST, answer(502), answer(504), KEPT], [0.05, 0.1, 0.2, 0.4]),
        ([problem(408, "request_timeout", b"connection: close"), KEPT], [0.05]),
    ],
)
def test_what_may_come_about_is_sent_again_under_the_same_key(
    answers: list[bytes], slept: list[float]
) -> None:
    script = Script(*answers)
    assert script.run(lambda service: service.post(ONE)) == Posted("i")
    assert script.slept == pytest.approx(slept)
    assert len(script.requests) == len(answers)
    assert {headers[b"idempotency-key"] for headers, _ in script.requests} == {b"made"}
    assert {headers[b"authorization"] for headers, _ in script.requests} == {b"bearer t"}
    body = b'{"amount":"0.10","timestamp":1767323045678,"currency":"EUR","user_id":"u"}'
    assert {body for _, body in script.requests} == {body}


@pytest.mark.parametrize("first", [LOST, DRAINING, answer(502), answer(503)])
def test_without_a_key_what_may_have_been_kept_is_never_sent_again(first: bytes) -> None:
    script = Script(first, KEPT)
    assert isinstance(script.run(lambda service: service.post(ONE, key=None)), FateUnknown)
    assert len(script.requests) == 1
    assert b"idempotency-key" not in script.requests[0][0]


@pytest.mark.parametrize("first", [LIMITED, REFUSED])
def test_without_a_key_what_was_certainly_not_kept_is_sent_again(first: bytes) -> None:
    script = Script(first, KEPT)
    assert script.run(lambda service: service.post(ONE, key=None)) == Posted("i")


def test_a_refusal_is_told_with_its_code_and_not_repeated() -> None:
    script = Script(problem(422, "invalid_field"), KEPT)
    told = script.run(lambda service: service.post(ONE))
    assert isinstance(told, Refused)
    assert (type(told), told.status, told.code) == (Refused, 422, "invalid_field")


def test_attempts_have_a_bound() -> None:
    script = Script(*[REFUSED] * 9)
    told = script.run(lambda service: service.post(ONE), attempts_max=3)
    assert isinstance(told, NotNow)
    assert (told.code, len(script.requests)) == ("store_refused", 3)


def test_their_time_has_a_bound_that_no_wait_goes_past() -> None:
    script = Script(*[LIMITED] * 9)
    assert isinstance(script.run(lambda service: service.post(ONE), total_seconds=7.0), NotNow)
    assert script.slept == pytest.approx([3.05, 3.1])


@pytest.mark.parametrize("last", [LIMITED, problem(401, "unauthorized")])
def test_where_one_attempt_was_lost_a_later_refusal_does_not_say_that_nothing_was_kept(
    last: bytes,
) -> None:
    script = Script(LOST, last)
    assert isinstance(script.run(lambda service: service.post(ONE), attempts_max=2), FateUnknown)


def test_nobody_listening_is_told_as_nothing_sent() -> None:
    async def use(service: Service) -> object:
        async with Service("http://127.0.0.1:9", patience=Patience(attempts_max=1)) as nobody:
            return await nobody.post(ONE)

    assert isinstance(Script().run(use), NotSent)


def test_a_deletion_is_not_repeated_where_it_may_have_been_done() -> None:
    script = Script(LOST, answer(204))
    assert isinstance(script.run(lambda service: service.clear()), FateUnknown)
    assert Script(answer(204)).run(lambda service: service.clear()) is None


FOREIGN = [
    answer(301, b"", b"location: https://elsewhere/"),
    answer(200, b'{"status":"ok"}'),
    answer(200, b"<html>"),
]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_what_another_answers_in_its_place_is_neither_kept_nor_deleted(foreign: bytes) -> None:
    for use in (lambda service: service.post(ONE), lambda service: service.clear()):
        assert isinstance(Script(foreign).run(use), FateUnknown | Refused)


@pytest.mark.parametrize("seconds", [b"999999999", b"99999999999", b"9" * 5000])
def test_who_is_told_to_come_again_in_years_does_not_come_at_once(seconds: bytes) -> None:
    script = Script(problem(429, "rate_limited", b"retry-after: " + seconds), KEPT)
    assert isinstance(script.run(lambda service: service.post(ONE)), NotNow)
    assert script.slept == []


def test_statistics_are_exact_decimals() -> None:
    figures = b'"sum":0.30000000,"avg":0.1,"max":92233720368.54775807,"min":-0.10,"count":3'
    script = Script(
        answer(
            200,
            b'{%b,"window_seconds":0.25,"resolution_ms":1,"as_of":"2026-01-02T03:04:05.678Z",'
            b'"by_currency":{"EUR":{%b}}}' % (figures, figures),
        )
    )

    async def use(service: Service) -> None:
        told = await service.statistics(window="250ms", currency="EUR", user_id="a&b")
        assert (told.sum, told.max) == (Decimal("0.30000000"), Decimal("92233720368.54775807"))
        assert told.window_seconds == Decimal("0.25")
        assert told.as_of == datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
        assert told.by_currency["EUR"].min == Decimal("-0.10")

    assert script.run(use) is None


def batch(*ids: str, errors: str = "") -> bytes:
    told = ",".join(f'"{each}"' if each else "null" for each in ids)
    return answer(
        200,
        f'{{"accepted":1,"duplicate":0,"late":1,"rejected":1,"errors":[{errors}],"ids":[{told}]}}'.encode(),
    )


def test_what_comes_one_by_one_leaves_together_and_each_hears_its_own_outcome() -> None:
    error = '{"index":2,"code":"invalid_field","detail":"d","field":"amount"}'
    script = Script(REFUSED, batch("a", "", "", errors=error))

    async def use(service: Service) -> None:
        gathering = Gathering(service, wait_ms=1)
        told = await asyncio.gather(*(gathering.post(ONE) for _ in range(3)), return_exceptions=True)
        assert told[:2] == [Posted("a"), LATE]
        assert isinstance(told[2], ItemRejected)
        assert told[2].problem.field == "amount"

    assert script.run(use) is None
    assert {headers[b"idempotency-key"] for headers, _ in script.requests} == {b"made"}


@pytest.mark.parametrize(
    ("bounds", "sizes"), [({"items_max": 2}, [2, 2, 1]), ({"body_bytes_max": 160}, [2, 2, 1])]
)
def test_a_batch_ends_where_another_item_would_not_fit(bounds: dict[str, int], sizes: list[int]) -> None:
    script = Script(*(batch(*"x" * size) for size in sizes))

    async def use(service: Service) -> None:
        # One connection, so that the answers meet the batches they are written for.
        service._places = asyncio.Semaphore(1)
        gathering = Gathering(service, wait_ms=60_000, **bounds)
        posts = asyncio.gather(*(gathering.post(ONE) for _ in range(5)))
        await asyncio.sleep(0)
        await gathering.drain()
        assert await posts == [Posted("x")] * 5

    assert script.run(use) is None
    assert [body.count(b"amount") for _, body in script.requests] == sizes
    if "body_bytes_max" in bounds:
        assert max(len(body) for _, body in script.requests) <= bounds["body_bytes_max"]
