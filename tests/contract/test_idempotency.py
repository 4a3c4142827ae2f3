"""A retry under the same key, as a client meets it: one effect, one answer."""

import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Late, Settings, Switch
from tests.support.client import LANES, NOW_MS, STORES, WINDOW_MS, assert_problem, database_url, stats
from tests.support.thread import Clock, ServiceThread, serve


@pytest.fixture(params=LANES)
def lane(request: pytest.FixtureRequest) -> Switch:
    chosen: Switch = request.param
    return chosen


@pytest.fixture(params=STORES)
def settings(request: pytest.FixtureRequest, lane: Switch, tmp_path: Path) -> Settings:
    return Settings(database_url=database_url(request.param, tmp_path), fast_lane=lane)


@pytest.fixture
def service(settings: Settings) -> Iterator[ServiceThread]:
    with serve(settings, Clock(NOW_MS)) as service:
        yield service


def body(**fields: object) -> bytes:
    return json.dumps({"amount": 1, "timestamp": NOW_MS, **fields}).encode()


def post(service: ServiceThread, key: str, content: bytes = body()) -> httpx.Response:
    return service.client.post("/transactions", content=content, headers={"idempotency-key": key})


def post_batch(
    service: ServiceThread, items: list[dict[str, Any]], key: str | None = None, query: str = ""
) -> httpx.Response:
    headers = {} if key is None else {"idempotency-key": key}
    return service.client.post(f"/transactions/batch{query}", json=items, headers=headers)


def item(key: object = None, **fields: object) -> dict[str, Any]:
    return {"amount": 1, "timestamp": NOW_MS, "idempotency_key": key, **fields}


def counts(answer: httpx.Response) -> tuple[int, int, int, int]:
    told = answer.json()
    return told["accepted"], told["duplicate"], told["late"], told["rejected"]


def test_a_repeat_has_the_first_answer_and_is_counted_once(service: ServiceThread) -> None:
    first = post(service, "a")
    again = post(service, "a")
    assert first.status_code == again.status_code == 201
    assert again.content == first.content
    assert again.headers["content-type"] == "application/json"
    assert stats(service)["count"] == 1
    other = post(service, "b")
    assert other.json()["id"] != first.json()["id"]
    assert stats(service)["count"] == 2


def test_the_same_key_for_another_body_is_a_conflict(service: ServiceThread) -> None:
    post(service, "a")
    assert_problem(post(service, "a", body(amount=2)), 409, "idempotency_conflict")
    # Not what it says but its bytes are what must be the same.
    assert_problem(post(service, "a", body() + b" "), 409, "idempotency_conflict")
    assert stats(service)["count"] == 1


@pytest.mark.parametrize("key", ["", "a b", "a\tb", "a" * 256, "ä"])
def test_a_malformed_key_is_refused(service: ServiceThread, key: str) -> None:
    headers = {b"idempotency-key": key.encode()}
    for path, content in (("/transactions", body()), ("/transactions/batch", b"[" + body() + b"]")):
        answer = service.client.post(path, content=content, headers=headers)
        assert_problem(answer, 400, "malformed_idempotency_key")
    assert stats(service)["count"] == 0


def test_two_keys_in_one_request_are_refused(service: ServiceThread) -> None:
    headers = [("idempotency-key", "a"), ("idempotency-key", "a")]
    answer = service.client.post("/transactions", content=body(), headers=headers)
    assert_problem(answer, 400, "malformed_idempotency_key")


@pytest.mark.parametrize("key", ["!", "~" * 255, '"quoted"', "a,b;c=d"])
def test_any_visible_characters_make_a_key(service: ServiceThread, key: str) -> None:
    assert post(service, key).content == post(service, key).content
    assert stats(service)["count"] == 1


@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (body(amount="x"), 422),
        (b"{", 400),
        (body(timestamp=NOW_MS + 5000), 422),
        (body(timestamp=NOW_MS - WINDOW_MS - 1), 204),
    ],
    ids=["wrong", "malformed", "ahead", "late"],
)
def test_what_was_not_accepted_burns_no_key(service: ServiceThread, refused: bytes, status: int) -> None:
    assert post(service, "a", refused).status_code == status
    assert post(service, "a").status_code == 201
    assert stats(service)["count"] == 1


def test_a_retry_that_has_become_late_is_still_a_retry(service: ServiceThread) -> None:
    first = post(service, "a")
    service.clock.now_ms += WINDOW_MS + 1
    assert post(service, "b").status_code == 204
    assert post(service, "a").content == first.content
    assert stats(service)["count"] == 0


def test_keys_outlive_a_deletion_and_bring_nothing_back(service: ServiceThread) -> None:
    first = post(service, "a")
    batch = post_batch(service, [item("b"), item()], "c", "?ids=true")
    assert service.client.delete("/transactions").status_code == 204
    assert post(service, "a").content == first.content
    assert post_batch(service, [item("b"), item()], "c", "?ids=true").content == batch.content
    assert counts(post_batch(service, [item("b")])) == (0, 1, 0, 0)
    assert stats(service)["count"] == 0


def test_the_same_text_on_another_route_is_another_key(service: ServiceThread) -> None:
    assert post(service, "a").status_code == 201
    assert counts(post_batch(service, [item("a")], "a")) == (1, 0, 0, 0)
    assert stats(service)["count"] == 2


def test_a_field_of_a_single_transaction_is_no_key(service: ServiceThread) -> None:
    for _ in range(2):
        content = body(idempotency_key="a")
        assert service.client.post("/transactions", content=content).status_code == 201
    assert stats(service)["count"] == 2


def test_a_key_covers_its_whole_batch(service: ServiceThread) -> None:
    items = [item(), item(amount="x"), item(timestamp=1), item()]
    first = post_batch(service, items, "a", "?ids=true")
    assert counts(first) == (2, 0, 1, 1)
    service.clock.now_ms += WINDOW_MS + 1
    assert post_batch(service, items, "a", "?ids=true").content == first.content
    assert_problem(post_batch(service, items, "a"), 409, "idempotency_conflict")
    assert_problem(post_batch(service, items[1:], "a", "?ids=true"), 409, "idempotency_conflict")
    assert counts(post_batch(service, items)) == (0, 0, 3, 1)


def test_an_answer_of_a_megabyte_is_remembered_to_the_last_byte(service: ServiceThread) -> None:
    items = [item(), *(item(amount="x", currency=f"{number}") for number in range(5000))]
    first = post_batch(service, items, "a", "?ids=true")
    assert len(first.content) > 2**20
    assert post_batch(service, items, "a", "?ids=true").content == first.content


def test_a_batch_of_which_nothing_was_accepted_burns_no_key(service: ServiceThread) -> None:
    assert counts(post_batch(service, [item(timestamp=1)], "a")) == (0, 0, 1, 0)
    assert post_batch(service, [item(), item(amount=-1)], "a", "?atomic=true").status_code == 422
    assert counts(post_batch(service, [item()], "a")) == (1, 0, 0, 0)


def test_a_batch_of_repeats_alone_has_used_its_key(service: ServiceThread) -> None:
    post_batch(service, [item("b")])
    first = post_batch(service, [item("b")], "a")
    assert counts(first) == (0, 1, 0, 0)
    assert_problem(post_batch(service, [item("c")], "a"), 409, "idempotency_conflict")
    assert post_batch(service, [item("b")], "a").content == first.content


def test_ids_sort_by_arrival_with_and_without_keys(service: ServiceThread) -> None:
    request = b"POST /transactions HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b"
    keyed = (b"idempotency-key: k%d\r\n" % number if number % 3 else b"" for number in range(60))
    with socket.create_connection(service.address) as wire:
        wire.sendall(b"".join(request % (key, len(body()), body()) for key in keyed))
        received = b""
        while received.count(b'"}') < 60:
            received += wire.recv(65536)
    ids = [part[:36] for part in received.split(b'{"id":"')[1:]]
    assert ids == sorted(set(ids))


def test_each_item_may_have_a_key(service: ServiceThread) -> None:
    first = post_batch(service, [item("a"), item("b"), item(), item("a")], query="?ids=true")
    assert counts(first) == (3, 1, 0, 0)
    ids = first.json()["ids"]
    assert ids[3] == ids[0]
    service.clock.now_ms += WINDOW_MS + 1
    again = post_batch(service, [item("b"), item("a"), item("c")], query="?ids=true")
    assert counts(again) == (0, 2, 1, 0)
    assert again.json()["ids"] == [ids[1], ids[0], None]


def test_an_item_whose_key_stands_for_another_is_rejected_alone(service: ServiceThread) -> None:
    post_batch(service, [item("a")])
    answer = post_batch(service, [item("a", amount=2), item("b"), item("b", currency="EUR")])
    assert counts(answer) == (1, 0, 0, 2)
    assert [(e["index"], e["code"], e["field"]) for e in answer.json()["errors"]] == [
        (0, "idempotency_conflict", "idempotency_key"),
        (2, "idempotency_conflict", "idempotency_key"),
    ]
    assert stats(service)["count"] == 2


def test_a_conflict_sinks_an_atomic_batch_and_burns_none_of_its_keys(service: ServiceThread) -> None:
    post_batch(service, [item("a")])
    sunk = post_batch(service, [item("b"), item("a", amount=2)], "c", "?atomic=true")
    assert_problem(sunk, 422, "invalid_field")
    assert sunk.json()["errors"][0]["pointer"] == "/1/idempotency_key"
    assert stats(service)["count"] == 1
    assert counts(post_batch(service, [item("b", amount=3)], "c", "?atomic=true")) == (1, 0, 0, 0)


def test_repeats_sink_no_atomic_batch(service: ServiceThread) -> None:
    post_batch(service, [item("a")])
    assert counts(post_batch(service, [item("a"), item("b")], query="?atomic=true")) == (1, 1, 0, 0)


@pytest.mark.parametrize("key", ["", "a b", "a" * 256, 7, ["a"]])
def test_an_item_with_a_wrong_key_is_rejected(service: ServiceThread, key: object) -> None:
    for content, kind in (
        (json.dumps([item(key), item("fine")]), "json"),
        (f"{json.dumps(item(key))}\n{json.dumps(item('fine'))}", "x-ndjson"),
    ):
        headers = {"content-type": f"application/{kind}"}
        answer = service.client.post("/transactions/batch", content=content, headers=headers)
        assert answer.json()["rejected"] == 1
        assert answer.json()["errors"][0]["field"] == "idempotency_key"


def test_one_key_on_many_connections_at_once_has_one_effect(service: ServiceThread) -> None:
    def send(number: int) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*service.address)
        headers = {"idempotency-key": f"{number % 4}"}
        connection.request("POST", "/transactions", body(), headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(64)))
    assert {status for status, _ in answers} == {201}
    assert len({content for _, content in answers}) == 4
    assert stats(service)["count"] == 4


def test_pipelined_repeats_have_one_effect(service: ServiceThread) -> None:
    request = (
        b"POST /transactions HTTP/1.1\r\nhost: x\r\nidempotency-key: a\r\ncontent-length: %d\r\n\r\n%b"
    ) % (len(body()), body())
    with socket.create_connection(service.address) as wire:
        wire.sendall(
            request * 50 + request.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nconnection: close\r\n")
        )
        received = b"".join(iter(lambda: wire.recv(65536), b""))
    assert received.count(b"201 Created") == 51
    assert len({part[:38] for part in received.split(b'{"id":')[1:]}) == 1
    assert stats(service)["count"] == 1


@pytest.mark.parametrize("kept", [True, False])
def test_keys_are_remembered_for_a_day_through_restarts(
    lane: Switch, tmp_path: Path, *, kept: bool
) -> None:
    settings = Settings(database_url=database_url("sqlite", tmp_path), fast_lane=lane)
    with serve(settings, Clock(NOW_MS)) as service:
        first = post(service, "a")
        items = post_batch(service, [item("b")], "c")
    later_ms = NOW_MS + (24 if kept else 26) * 3_600_000
    with serve(settings, Clock(later_ms)) as service:
        # The first thing maintenance does is to forget; a deletion waits behind it.
        service.client.delete("/transactions")
        assert service.client.delete("/transactions").status_code == 204
        if kept:
            assert post(service, "a").content == first.content
            assert post_batch(service, [item("b")], "c").content == items.content
            assert counts(post_batch(service, [item("b")])) == (0, 1, 0, 0)
        else:
            assert post(service, "a").status_code == 204
            assert counts(post_batch(service, [item("b")], "c")) == (0, 0, 1, 0)


@pytest.mark.parametrize("kind", STORES)
def test_what_is_late_may_be_kept_without_being_counted(lane: Switch, kind: str, tmp_path: Path) -> None:
    settings = Settings(database_url=database_url(kind, tmp_path), fast_lane=lane, late=Late.KEEP)
    late = body(timestamp=NOW_MS - WINDOW_MS - 1)
    with serve(settings, Clock(NOW_MS)) as service:
        answer = service.client.post("/transactions", content=late)
        assert answer.status_code == 201
        assert answer.json()["counted"] is False
        assert len(answer.json()["id"]) == 36
        keyed = post(service, "a", late)
        assert keyed.json()["counted"] is False
        assert post(service, "a", late).content == keyed.content
        batch = post_batch(service, [item(timestamp=1), item()], query="?ids=true")
        assert counts(batch) == (2, 0, 0, 0)
        assert all(batch.json()["ids"])
        assert stats(service)["count"] == 1
    if kind == "sqlite":
        with serve(settings, Clock(NOW_MS)) as service:
            assert stats(service)["count"] == 1
