"""Entries of the feed as a client sees them: what goes in comes out, once, until it is deleted."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.identifier import parse_identifier
from app.settings import Settings
from tests.support.client import (
    NOW,
    NOW_MS,
    STORES,
    WINDOW_MS,
    assert_problem,
    database_url,
    post,
    stats,
)
from tests.support.feed import PATH, USER, find, names, post_entries, post_entry
from tests.support.thread import Clock, ServiceThread, serve

PATHS = ["/transactions", PATH]


@pytest.fixture(scope="module")
def running(on_each_store: ServiceThread) -> ServiceThread:
    return on_each_store


def test_an_entry_is_answered_whole_and_found_as_it_was_answered(service: ServiceThread) -> None:
    answer = post_entry(
        service,
        user_id=7,
        amount="12.5",
        currency="EUR",
        transaction_type="card",
        product="Card",
        status="pending",
        metadata={"name": "Žluťoučký kůň", "card_last_four": "0042", "a": [1.5, None, {"z": 1, "b": 2}]},
        timestamp="2026-01-02T03:04:05Z",
    )
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    identifier = answer.json()["id"]
    assert answer.text == (
        f'{{"id":"{identifier}","user_id":"7","amount":12.50,"currency":"EUR",'
        '"timestamp":"2026-01-02T03:04:05.000Z","transaction_type":"card","product":"Card",'
        '"status":"pending","metadata":{"a":[1.5,null,{"b":2,"z":1}],"card_last_four":"0042",'
        f'"name":"Žluťoučký kůň"}},"created_at":"{NOW}"}}'
    )
    for path in PATHS:
        for spelled in (identifier, identifier.upper()):
            assert service.client.get(f"{path}/{spelled}").content == answer.content
        assert service.client.get(f"{path}?user_id=7").text == (
            f'{{"items":[{answer.text}],"page":1,"page_size":20,"next_cursor":null}}'
        )


def test_what_an_entry_does_not_say_has_its_default(service: ServiceThread) -> None:
    nothing = dict.fromkeys(
        ("currency", "transaction_type", "product", "status", "metadata", "timestamp")
    )
    for fields in ({}, nothing, {"metadata": {}, "status": "completed"}):
        told = post_entry(service, **fields).json()
        told.pop("id")
        assert told == {
            "user_id": USER,
            "amount": 1,
            "currency": "USD",
            "timestamp": NOW,
            "transaction_type": None,
            "product": None,
            "status": "completed",
            "metadata": {},
            "created_at": NOW,
        }
    assert len(find(service, {"status": "completed"})["items"]) == 3


def test_an_entry_is_created_when_its_id_was_made(service: ServiceThread) -> None:
    told = post_entry(service, timestamp=0).json()
    assert told["timestamp"] == "1970-01-01T00:00:00.000Z"
    assert told["created_at"] == NOW
    assert (parse_identifier(told["id"]) or 0) >> 80 >= NOW_MS


def test_plain_transactions_are_in_the_feed_too(service: ServiceThread) -> None:
    single = post(service, user_id="bob", amount="0.00000001").json()["id"]
    batch = [{"amount": 2, "timestamp": NOW_MS, "idempotency_key": "a"}]
    ids = service.client.post("/transactions/batch?ids=true", json=batch).json()["ids"]
    found = find(service)["items"]
    assert [item["id"] for item in found] == [*ids, single]
    assert [item["user_id"] for item in found] == [None, "bob"]
    assert '"amount":0.00000001,' in service.client.get(f"/transactions/{single}").text


@pytest.mark.parametrize("age_ms", [0, WINDOW_MS, WINDOW_MS + 1, 10**12])
def test_an_entry_of_the_past_is_kept_and_counted_only_inside_the_window(
    service: ServiceThread, age_ms: int
) -> None:
    answer = post_entry(service, timestamp=NOW_MS - age_ms)
    assert answer.status_code == 201
    assert len(find(service)["items"]) == 1
    assert stats(service)["count"] == (1 if age_ms <= WINDOW_MS else 0)
    # Elsewhere, what is late is late.
    assert post(service, timestamp=NOW_MS - age_ms).status_code == (201 if age_ms <= WINDOW_MS else 204)


def test_an_entry_of_the_future_is_refused(service: ServiceThread) -> None:
    assert post_entry(service, timestamp=NOW_MS + 1000).status_code == 201
    assert_problem(post_entry(service, timestamp=NOW_MS + 1001), 422, "timestamp_ahead")
    assert len(find(service)["items"]) == 1


def test_every_wrong_field_of_an_entry_is_named(service: ServiceThread) -> None:
    answer = post_entry(
        service,
        user_id="",
        amount="NaN",
        currency="usd",
        transaction_type="Card",
        product="card",
        status="done",
        metadata=[],
        timestamp="now",
    )
    details = assert_problem(answer, 422, "invalid_field")
    assert [error["pointer"] for error in details["errors"]] == [
        *("/user_id", "/amount", "/currency", "/transaction_type"),
        *("/product", "/status", "/metadata", "/timestamp"),
    ]
    assert find(service)["items"] == []


def test_an_entry_must_say_whose_it_is_and_how_much(service: ServiceThread) -> None:
    details = assert_problem(service.client.post(PATH, json={"user_id": None}), 422, "invalid_field")
    assert [error["pointer"] for error in details["errors"]] == ["/user_id", "/amount"]


def test_a_known_field_of_the_wrong_form_is_pointed_to(service: ServiceThread) -> None:
    metadata = {"card_last_four": "123", "merchant_name": 7, "free": {"of": ["form"]}}
    details = assert_problem(
        post_entry(service, transaction_type="card", metadata=metadata), 422, "invalid_field"
    )
    assert [error["pointer"] for error in details["errors"]] == [
        "/metadata/merchant_name",
        "/metadata/card_last_four",
    ]
    metadata = {"card_last_four": "1234", "merchant_name": "7"}
    assert post_entry(service, transaction_type="card", metadata=metadata).status_code == 201


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"x":"\xff"}', b"[" * 60_000])
def test_an_entry_that_is_no_json_object_is_400(service: ServiceThread, body: bytes) -> None:
    assert_problem(service.client.post(PATH, content=body), 400, "malformed_body")


@pytest.mark.parametrize("store", STORES)
def test_a_retried_entry_is_kept_once_and_answered_as_before(store: str, tmp_path: Path) -> None:
    with serve(Settings(database_url=database_url(store, tmp_path)), Clock(NOW_MS)) as service:
        retry(service)


def retry(service: ServiceThread) -> None:
    def send(key: str, **fields: object) -> httpx.Response:
        body = json.dumps({"user_id": USER, "amount": 1, **fields})
        return service.client.post(PATH, content=body, headers={"idempotency-key": key})

    noise = {"name": "x" * 2000}
    first, late = send("feed-1", metadata=noise), send("feed-2", timestamp=0)
    assert first.status_code == late.status_code == 201
    service.clock.now_ms += WINDOW_MS + 1
    assert send("feed-1", metadata=noise).content == first.content
    assert send("feed-2", timestamp=0).content == late.content
    assert_problem(send("feed-1"), 409, "idempotency_conflict")
    assert len(find(service)["items"]) == 2
    # The same text on another route is another key.
    body = json.dumps({"user_id": USER, "amount": 1, "timestamp": service.clock.now_ms})
    answer = service.client.post("/transactions", content=body, headers={"idempotency-key": "feed-1"})
    assert list(answer.json()) == ["id"]


def test_deleted_entries_are_not_found_and_later_ones_are(service: ServiceThread) -> None:
    post_entries(service, [{"metadata": {"name": "before"}}] * 3)
    cursor = find(service, {"limit": 1})["next_cursor"]
    assert service.client.delete("/transactions").status_code == 204
    post_entries(service, [{"metadata": {"name": "after"}, "timestamp": 0}])
    assert names(find(service, {"cursor": cursor})) == ["after"]
    assert find(service, {"search_query": "before", "page": 1})["total"] == 0


def test_head_answers_as_get_does_without_a_body(service: ServiceThread) -> None:
    there = post_entry(service).json()["id"]
    for target in (
        f"{PATH}/{there}",
        f"/transactions/{there}",
        "/transactions",
        f"{PATH}?user_id={USER}",
    ):
        got, head = service.client.get(target), service.client.head(target)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers == got.headers


def test_pages_of_other_origins_are_answered_as_elsewhere() -> None:
    settings = Settings(database_url="memory://", cors_origins="https://a.example")
    with serve(settings, Clock(NOW_MS)) as service:
        there = post_entry(service).json()["id"]
        asked = {"origin": "https://a.example", "access-control-request-method": "GET"}
        for target in (PATH, f"{PATH}/{there}", f"/transactions/{there}"):
            preflight = service.client.options(target, headers=asked)
            assert preflight.status_code == 200
            answer = service.client.get(f"{target}?user_id=x", headers={"origin": "https://a.example"})
            assert answer.headers["access-control-allow-origin"] == "https://a.example"
        headers = {"origin": "https://b.example"}
        refused = service.client.post(PATH, json={"user_id": USER, "amount": 1}, headers=headers)
        assert_problem(refused, 403, "forbidden")


def test_a_rate_is_that_of_all_doors_together() -> None:
    settings = Settings(database_url="memory://", rate_limit_per_second=1, rate_limit_burst=3)
    with serve(settings, Clock(NOW_MS)) as service:
        there = post_entry(service).json()["id"]
        assert service.client.get(f"{PATH}/{there}").status_code == 200
        assert service.client.get("/transactions").status_code == 200
        for target in (PATH, f"{PATH}/{there}", f"/transactions/{there}", "/transactions"):
            assert_problem(service.client.get(target), 429, "rate_limited")


def test_negative_entries_are_taken_where_they_are_allowed() -> None:
    settings = Settings(database_url="memory://", allow_negative_amounts=True)
    with serve(settings, Clock(NOW_MS)) as service:
        told: Any = post_entry(service, amount="-3.5")
        assert '"amount":-3.50,' in told.text
        assert len(find(service, {"max_amount": "-3.5"})["items"]) == 1
        assert find(service, {"min_amount": "-3.49999999"})["items"] == []
