"""The proxy of the compose profile `scale`, deploy/nginx-scale.conf, in front of three nodes."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from app.client.wire import Client, parse_address
from tests.support.ledger_file import rows_in, sqlite_url
from tests.support.nginx import adapted, free_port, needs_nginx, running_nginx
from tests.support.process import WAIT_SECONDS, ServiceProcess
from tests.support.stub_node import Does, StubNode

EXAMPLE = Path(__file__).parents[2] / "deploy" / "nginx-scale.conf"
NODES = 3
POSTERS, READERS = 8, 4
POSTS_BETWEEN = 300
UNITS = 10**8

pytestmark = needs_nginx


@contextmanager
def proxied(directory: Path, places: Sequence[str]) -> Iterator[str]:
    """nginx as the profile has it, in front of the nodes at these places; its URL."""
    port = free_port()
    text = adapted(
        EXAMPLE,
        {
            "listen 8080;": f"listen 127.0.0.1:{port};",
            "worker_processes auto;": "worker_processes 2;",
            **{f"millrace-{number}:8000": place for number, place in enumerate(places, 1)},
        },
    )
    with running_nginx(directory, text.replace("/tmp/", f"{directory}/"), port):
        yield f"http://127.0.0.1:{port}"


def stub_test(
    directory: Path,
    does: Does,
    body: Callable[[httpx.AsyncClient, list[StubNode]], Awaitable[None]],
) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            nodes = [await stack.enter_async_context(StubNode(does)) for _ in range(NODES)]
            url = stack.enter_context(proxied(directory, [node.place for node in nodes]))
            client = httpx.AsyncClient(base_url=url, timeout=WAIT_SECONDS)
            await body(await stack.enter_async_context(client), nodes)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "times"), [("POST", 1), ("DELETE", 1), ("GET", NODES), ("HEAD", NODES)]
)
def test_only_what_changes_nothing_is_sent_again(tmp_path: Path, method: str, times: int) -> None:
    async def body(client: httpx.AsyncClient, nodes: list[StubNode]) -> None:
        answer = await client.request(method, "/transactions", headers={"X-Request-ID": "mine"})
        assert answer.status_code == 502
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == "mine"
        if method != "HEAD":
            assert answer.json().keys() == {"title", "status", "code", "detail"}
            assert (answer.json()["status"], answer.json()["code"]) == (502, "no_answer")
        assert [each.method for node in nodes for each in node.taken] == [method] * times

    stub_test(tmp_path, Does.CUT, body)


def test_a_node_that_cannot_be_reached_costs_nobody_anything(tmp_path: Path) -> None:
    async def body(client: httpx.AsyncClient, nodes: list[StubNode]) -> None:
        nodes[0].close()
        nodes[2].close()
        for _ in range(10):
            assert (await client.post("/transactions", json={})).status_code == 200
            assert (await client.get("/stats")).status_code == 200
        assert len(nodes[1].taken) == 20

    stub_test(tmp_path, Does.ANSWER, body)


def test_headers_go_through_but_for_who_is_asking(tmp_path: Path) -> None:
    async def body(client: httpx.AsyncClient, nodes: list[StubNode]) -> None:
        headers = {"Host": "millrace.example:81", "X-Request-ID": "mine", "Idempotency-Key": "key"}
        forged = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}
        await client.post("/transactions", headers={**headers, **forged}, json={})
        (taken,) = [each for node in nodes for each in node.taken]
        assert {name: taken.headers[name.lower()] for name in headers} == headers
        assert taken.headers["x-forwarded-for"] == "127.0.0.1"
        assert taken.headers["x-forwarded-proto"] == "http"
        assert "connection" not in taken.headers

    stub_test(tmp_path, Does.ANSWER, body)


def test_an_event_goes_out_when_it_comes(tmp_path: Path) -> None:
    async def body(client: httpx.AsyncClient, nodes: list[StubNode]) -> None:
        async with client.stream("GET", "/stats/stream") as answer:
            lines = answer.aiter_lines()
            # The node sends no more until this one has arrived.
            assert await anext(lines) == "data: 1"
            for node in nodes:
                node.go_on.set()
            assert [line async for line in lines] == ["", "data: 2", ""]

    stub_test(tmp_path, Does.STREAM, body)


def body() -> dict[str, int]:
    return {"amount": 1, "timestamp": time.time_ns() // 1_000_000}


@contextmanager
def three_services(directory: Path) -> Iterator[tuple[list[ServiceProcess], list[Path]]]:
    """Three nodes that know nothing of each other, so that what each took can be told apart."""
    paths = [directory / f"{number}" / "millrace.db" for number in range(NODES)]
    with (
        ServiceProcess({"DATABASE_URL": sqlite_url(paths[0])}) as first,
        ServiceProcess({"DATABASE_URL": sqlite_url(paths[1])}) as second,
        ServiceProcess({"DATABASE_URL": sqlite_url(paths[2])}) as third,
    ):
        yield [first, second, third], paths


def places(urls: Sequence[str]) -> list[str]:
    return [str(urlsplit(url).netloc) for url in urls]


def test_what_is_asked_through_it_is_answered_as_without_it(tmp_path: Path) -> None:
    with (
        three_services(tmp_path) as (services, _),
        proxied(tmp_path, places(nodes := [service.serving() for service in services])) as url,
        httpx.Client(base_url=url, timeout=WAIT_SECONDS) as client,
    ):
        for _ in range(30):
            answer = client.post("/transactions", json=body(), headers={"X-Request-ID": "mine"})
            assert (answer.status_code, answer.headers["x-request-id"]) == (201, "mine")
        counts = [client.get(f"{node}/stats").json()["count"] for node in nodes]
        assert sum(counts) == 30
        assert min(counts) > 0
        assert client.post("/transactions/batch", json=[body()] * 10_000).json()["accepted"] == 10_000
        of_node = client.post("/transactions", content=b"x" * 65_537)
        assert client.post("/transactions/batch", content=b" " * (8 * 2**20)).status_code == 400
        of_nginx = client.post("/transactions/batch", content=b" " * (8 * 2**20 + 1))
        for refusal in (of_node, of_nginx):
            assert (refusal.status_code, refusal.json()["code"]) == (413, "body_too_large")
            assert refusal.json()["status"] == 413
            assert refusal.headers["content-type"] == "application/problem+json"
            assert refusal.headers["x-request-id"]
        assert of_node.json().keys() == of_nginx.json().keys()
        assert client.get("/stats", headers={"x": "v" * 8000}).status_code == 200
        assert client.delete("/transactions").status_code == 204


class Load:
    """Clients of a proxy: each amount is posted once, whatever is answered."""

    def __init__(self, url: str) -> None:
        self._address = parse_address(url)
        self._amounts = itertools.count(1)
        self.acknowledged: dict[str, int] = {}
        """The amount of each transaction that was answered 201, by its id."""
        self.lost: list[int] = []
        """The amounts of which nobody said whether they were kept."""
        self.reads = 0
        self.is_over = False
        self._grown = asyncio.Event()

    async def reach(self, acknowledged: int) -> None:
        """Wait until that many have been acknowledged."""
        while len(self.acknowledged) < acknowledged:
            self._grown.clear()
            await self._grown.wait()

    async def post(self) -> None:
        async with Client(self._address) as client:
            while not self.is_over:
                amount = next(self._amounts)
                text = b'{"amount":%d,"timestamp":%d}' % (amount, time.time_ns() // 1_000_000)
                answer = await client.post("/transactions", text)
                told = msgspec.json.decode(answer.body)
                if answer.status == 201:
                    self.acknowledged[told["id"].replace("-", "")] = amount * UNITS
                else:
                    assert (answer.status, told["code"]) == (502, "no_answer"), told
                    self.lost.append(amount * UNITS)
                self._grown.set()

    async def read(self) -> None:
        async with Client(self._address) as client:
            while not self.is_over:
                assert (await client.get("/stats")).status == 200
                self.reads += 1


def test_a_node_that_is_killed_costs_what_was_in_flight_there_and_no_more(tmp_path: Path) -> None:
    async def main(services: Sequence[ServiceProcess], url: str) -> Load:
        load = Load(url)
        async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
            for _ in range(POSTERS):
                group.create_task(load.post())
            for _ in range(READERS):
                group.create_task(load.read())
            await load.reach(POSTS_BETWEEN)
            services[1].kill()
            await load.reach(len(load.acknowledged) + POSTS_BETWEEN)
            load.is_over = True
        return load

    with (
        three_services(tmp_path) as (services, paths),
        proxied(tmp_path, places([service.serving() for service in services])) as url,
    ):
        load = asyncio.run(main(services, url))
        for service in services:
            service.kill()
    kept = [row for path in paths for row in rows_in(path).items()]
    assert load.reads > 0
    assert len(load.lost) <= POSTERS
    assert len(dict(kept)) == len({amount for _, amount in kept}) == len(kept), "one was kept twice"
    assert load.acknowledged.items() <= dict(kept).items()
    assert {amount for _, amount in kept} <= {*load.acknowledged.values(), *load.lost}
    # Nor was one sent on that was lost: it is where it was in flight, or nowhere.
    assert set(load.lost).isdisjoint([*rows_in(paths[0]).values(), *rows_in(paths[2]).values()])
