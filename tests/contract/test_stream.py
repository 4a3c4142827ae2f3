"""The stream of figures: what its events say, when they come, and when there are no more of them."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from starlette.types import Message

from app.settings import Settings
from app.web.answers import Problem
from app.web.guard import ANYONE, OpenDoor
from app.web.resource import Streamed
from app.web.stats import Question, Stats
from app.web.stream import StatsStream
from tests.support.attacks import NOW_MS as TOKENS_MS
from tests.support.attacks import secret_mint
from tests.support.client import NOW_MS, WINDOW_MS, assert_problem, protected
from tests.support.client import post as post_fields
from tests.support.events import listening, refusal
from tests.support.issuer import SECRET
from tests.support.plain_http import plain_client
from tests.support.thread import WAIT_SECONDS, Clock, ServiceThread, serve

FAST = "?interval=250ms"


@pytest.fixture(scope="module")
def running() -> Iterator[ServiceThread]:
    with serve(Settings(database_url="memory://"), Clock(NOW_MS)) as service:
        yield service


def post(service: ServiceThread, **fields: object) -> httpx.Response:
    """Post one of now."""
    return post_fields(service, timestamp=service.clock.now_ms, **fields)


def test_an_event_comes_at_once_and_says_what_stats_does(service: ServiceThread) -> None:
    post(service, amount="92233720368.54775807", currency="EUR")
    post(service, amount="92233720368.54775807", currency="CHF")
    # The next one would come in a minute.
    with listening(service.client, "?interval=60s") as events:
        first = next(events)
        assert events.answer.headers["cache-control"] == "no-store"
    assert first.fields == {
        "retry": "1000",
        "id": str(service.clock.now_ms),
        "data": service.client.get("/stats").text,
    }
    assert '"sum":184467440737.09551614' in first.data


def test_it_answers_the_question_it_is_asked(service: ServiceThread) -> None:
    post(service, currency="EUR", amount=5)
    post(service, currency="CHF", amount=7)
    for query in ("?currency=EUR", "?window=10s", "?window=1s&currency=CHF"):
        asked = query.replace("&", "&%69nterval=1s&")
        with listening(service.client, asked) as events:
            assert next(events).data == service.client.get(f"/stats{query}").text


def test_what_is_posted_is_told_and_without_traffic_figures_fall_to_zero(
    service: ServiceThread,
) -> None:
    with listening(service.client, FAST) as events:
        assert json.loads(next(events).data)["count"] == 0
        post(service)
        counts = [json.loads(next(events).data)["count"] for _ in range(2)]
        assert counts[-1] == 1
        service.clock.now_ms += WINDOW_MS + 1
        counts = [json.loads(next(events).data)["count"] for _ in range(2)]
        assert counts[-1] == 0


def test_who_comes_back_begins_with_how_it_is_now(service: ServiceThread) -> None:
    with listening(service.client) as events:
        seen = next(events).fields["id"]
    post(service)
    with listening(service.client, headers={"last-event-id": seen}) as events:
        assert json.loads(next(events).data)["count"] == 1


def test_while_there_are_no_figures_it_says_why_and_goes_on() -> None:
    with serve(Settings(database_url="memory://"), Clock(NOW_MS)) as service:
        post(service)
        with listening(service.client, FAST) as events:
            next(events)
            service.clock.now_ms -= 3_600_000
            told = next(event for event in events if event.fields.get("event") == "unready")
            assert json.loads(told.data)["code"] == "not_ready"
            assert "id" not in told.fields
            # The window has been read back by the new clock.
            told = next(event for event in events if "event" not in event.fields)
            assert int(told.fields["id"]) == service.clock.now_ms


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("interval=249ms", "/interval"),
        ("interval=61s", "/interval"),
        ("interval=", "/interval"),
        ("interval=1s&interval=1s", "/interval"),
        ("%69nterval=0", "/interval"),
        ("interval=1s&window=2h", "/window"),
        ("interval=1s&user_id=u", "/user_id"),
        ("intervall=1s", "/intervall"),
    ],
)
def test_a_wrong_question_is_refused(query: str, wrong: str, service: ServiceThread) -> None:
    details = assert_problem(refusal(service.client, f"?{query}"), 422, "invalid_parameter")
    assert [error["pointer"] for error in details["errors"]] == [wrong]


def test_head_has_no_stream(service: ServiceThread) -> None:
    answer = service.client.head("/stats/stream")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "text/event-stream"
    assert service.client.get("/livez").status_code == 200


def test_figures_are_put_together_once_for_all_who_ask_the_same(
    service: ServiceThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Question] = []
    figures = Stats.figures

    def count(stats: Stats, question: Question) -> tuple[int, bytes]:
        made.append(question)
        return figures(stats, question)

    monkeypatch.setattr(Stats, "figures", count)
    listeners, ticks = 20, 3
    with ExitStack() as stack:
        streams = [stack.enter_context(listening(service.client, FAST)) for _ in range(listeners)]
        for events in streams:
            next(events)
        made.clear()
        for events in streams:
            for _ in range(ticks):
                next(events)
        assert len(made) < 3 * ticks


def test_there_is_room_for_so_many_and_again_when_one_has_gone() -> None:
    settings = Settings(database_url="memory://", connections_max=6)
    with serve(settings, Clock(NOW_MS)) as service, ExitStack() as stack:
        streams = [stack.enter_context(listening(service.client, FAST)) for _ in range(3)]
        for events in streams:
            next(events)
        refused = refusal(service.client)
        assert_problem(refused, 503, "too_many_subscribers")
        assert int(refused.headers["retry-after"]) > 0
        assert post(service).status_code == 201
        streams[0].answer.close()
        # It is noticed when it is written to.
        while service.client.head("/stats/stream").status_code != 200:
            next(streams[1])
        with listening(service.client) as events:
            next(events)


def test_so_many_different_questions_may_be_asked() -> None:
    with serve(Settings(database_url="memory://"), Clock(NOW_MS)) as service, ExitStack() as stack:
        for number in range(64):
            query = f"?interval={20_000 + number}ms"
            next(stack.enter_context(listening(service.client, query)))
        next(stack.enter_context(listening(service.client, "?interval=20s")))
        refused = refusal(service.client, "?interval=19s")
        assert_problem(refused, 503, "too_many_subscribers")
        # Whoever asks so many has not taken the page's own from it.
        next(stack.enter_context(listening(service.client)))


def test_it_ends_when_the_token_does() -> None:
    clock = Clock(TOKENS_MS)
    with serve(protected(jwt_secret=SECRET), clock) as service:
        lacking = {"authorization": f"Bearer {secret_mint(claims={'scope': 'transactions:read'})}"}
        assert_problem(service.client.get("/stats/stream", headers=lacking), 403, "forbidden")
        token = {"authorization": f"Bearer {secret_mint()}"}
        with listening(service.client, FAST, token) as events:
            next(events)
            next(events)
            clock.now_ms += 86_400_000
            assert len(list(events)) <= 1


def test_it_ends_with_the_service() -> None:
    with ExitStack() as stack:
        with serve(Settings(database_url="memory://"), Clock(NOW_MS)) as service:
            client = stack.enter_context(plain_client(str(service.client.base_url)))
            events = stack.enter_context(listening(client))
            next(events)
        # Whole, with the mark that ends it.
        assert list(events) == []


class Deaf:
    """A client that takes what it is sent when it is told to."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.has_time = asyncio.Event()
        self.goes = asyncio.Event()

    async def send(self, message: Message) -> None:
        await self.has_time.wait()
        self.sent.append(message.get("body", b""))

    async def receive(self) -> Message:
        await self.goes.wait()
        return {"type": "http.disconnect"}


class Numbered(Stats):
    """Figures that are a number, one more each time."""

    def __init__(self) -> None:
        self.number = 0

    def question(self, query: bytes) -> Question:
        return Question()

    def figures(self, question: Question) -> tuple[int, bytes]:
        self.number += 1
        return self.number, b"%d" % self.number


def test_who_does_not_read_is_not_waited_for_and_has_one_event_waiting() -> None:
    async def scenario() -> None:
        stream = StatsStream(Numbered(), OpenDoor(), 100)
        scope = {"method": "GET", "query_string": b"interval=250ms", "headers": []}
        quick, slow = Deaf(), Deaf()
        quick.has_time.set()
        tasks = []
        for client in (slow, quick):
            answer = await stream.get(scope, client.receive, ANYONE)
            assert isinstance(answer, Streamed)
            tasks.append(asyncio.ensure_future(answer.go_on(client.send)))
        while len(quick.sent) < 4:
            await asyncio.sleep(0.01)
        assert slow.sent == []
        slow.has_time.set()
        while len(slow.sent) < 2:
            await asyncio.sleep(0.01)
        # The one that it was being sent, and the newest.
        assert slow.sent[0] == quick.sent[0]
        assert slow.sent[1] == quick.sent[3]
        slow.goes.set()
        stream.end()
        await asyncio.gather(*tasks)
        assert slow.sent[-1] == quick.sent[-1] == b""
        with pytest.raises(Problem):
            await stream.get(scope, quick.receive, ANYONE)

    asyncio.run(asyncio.wait_for(scenario(), WAIT_SECONDS))


def test_a_long_silence_is_broken_and_the_figures_keep_their_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.web.stream._SILENCE_SECONDS_MAX", 0.1)

    async def scenario() -> None:
        stream = StatsStream(Numbered(), OpenDoor(), 100)
        scope = {"method": "GET", "query_string": b"interval=250ms", "headers": []}
        client = Deaf()
        client.has_time.set()
        answer = await stream.get(scope, client.receive, ANYONE)
        assert isinstance(answer, Streamed)
        going_on = asyncio.ensure_future(answer.go_on(client.send))
        while len(client.sent) < 6:
            await asyncio.sleep(0.01)
        stream.end()
        await going_on
        beat = b":\n\n"
        told = [b"id: %d\ndata: %d\n\n" % (number, number) for number in (2, 3)]
        assert client.sent[:6] == [beat, beat, told[0], beat, beat, told[1]]

    asyncio.run(asyncio.wait_for(scenario(), WAIT_SECONDS))
