"""The feed as a client sees it: what goes in comes out, and what is asked for is what is found."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.identifier import parse_identifier
from app.settings import Settings, Switch
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
from tests.support.feed import PATH, USER, Json, Query, find, names, post_entries, post_entry
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


ENTRIES: list[Json] = [
    {"metadata": {"name": "plain"}},
    {"metadata": {"name": "bob's"}, "user_id": "bob"},
    {"metadata": {"name": "card", "card_last_four": "1234"}, "transaction_type": "card"},
    {"metadata": {"name": "product"}, "product": "P2P"},
    {"metadata": {"name": "pending"}, "status": "pending"},
    {"metadata": {"name": "koruna"}, "currency": "CZK"},
    {"metadata": {"name": "tiny"}, "amount": "0.00000001"},
    {"metadata": {"name": "huge"}, "amount": "92233720368.54775807"},
    {"metadata": {"name": "midnight"}, "timestamp": "2026-01-01"},
    {"metadata": {"name": "last"}, "timestamp": "2026-01-01T23:59:59.999Z"},
    {"metadata": {"name": "shop", "merchant_name": "Café Šárka", "merchant_category": "food"}},
    {"metadata": {"name": "city", "location": "Brno, CZ"}},
    {"metadata": {"name": "peer", "peer_name": "Eve", "peer_email": "eve@x.cz", "direction": "sent"}},
    {"metadata": {"name": "deep", "a": [{"b": "Brno or bust"}]}},
]


EVERY = {entry["metadata"]["name"] for entry in ENTRIES}


@pytest.fixture(scope="module")
def filled(running: ServiceThread) -> ServiceThread:
    assert running.client.delete("/transactions").status_code == 204
    post_entries(running, ENTRIES)
    return running


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, EVERY),
        ({"user_id": "bob"}, {"bob's"}),
        ({"user_id": "BOB"}, set()),
        ({"transaction_type": "card"}, {"card"}),
        ({"product": "P2P"}, {"product"}),
        ({"status": "pending"}, {"pending"}),
        ({"status": "completed"}, EVERY - {"pending"}),
        ({"currency": "CZK"}, {"koruna"}),
        ({"max_amount": "0.00000001"}, {"tiny"}),
        ({"max_amount": "0.99999999"}, {"tiny"}),
        ({"max_amount": "1e0"}, EVERY - {"huge"}),
        ({"min_amount": "92233720368.54775807"}, {"huge"}),
        ({"min_amount": "1.00000001", "max_amount": "1"}, set()),
        ({"min_amount": "-5"}, EVERY),
        ({"end_date": "2026-01-01"}, {"midnight", "last"}),
        ({"end_date": "2026-01-01T00:00:00Z"}, {"midnight"}),
        ({"end_date": "2025-12-31"}, set()),
        ({"start_date": "2026-01-01", "end_date": "2026-01-01"}, {"midnight", "last"}),
        ({"start_date": "2026-01-01T01:00:00+01:00", "end_date": "1767225600"}, {"midnight"}),
        ({"start_date": "1767311999999", "end_date": "1767311999999"}, {"last"}),
        ({"start_date": "1767311999.999", "end_date": "2026-01-01 23:59:59,999"}, {"last"}),
        ({"start_date": "2026-01-02"}, EVERY - {"midnight", "last"}),
        ({"start_date": NOW}, EVERY - {"midnight", "last"}),
        ({"start_date": "9999-12-31", "end_date": "9999-12-31"}, set()),
        ({"merchant_name": "Café Šárka"}, {"shop"}),
        ({"merchant_name": "café šárka"}, set()),
        ({"merchant_name": "Café"}, set()),
        ({"merchant_category": "food"}, {"shop"}),
        ({"card_last_four": "1234"}, {"card"}),
        ({"location": "Brno, CZ"}, {"city"}),
        ({"peer_name": "Eve", "peer_email": "eve@x.cz", "direction": "sent"}, {"peer"}),
        ({"peer_name": "Eve", "direction": "received"}, set()),
        ({"search_query": "brno"}, {"city", "deep"}),
        ({"search_query": "BRNO Bust"}, {"deep"}),
        ({"search_query": "cafe sarka"}, {"shop"}),
        ({"search_query": "brn"}, set()),
        ({"search_query": "eve@x.cz", "transaction_type": "card"}, set()),
    ],
    ids=str,
)
def test_a_question_finds_what_it_asks_for(filled: ServiceThread, query: Query, found: set[str]) -> None:
    assert set(names(find(filled, query))) == found
    user = {"user_id": USER, **query}
    expected = found if query.get("user_id") else found - {"bob's"}
    assert set(names(find(filled, user, PATH))) == expected
    assert find(filled, {**query, "page": 1})["total"] == len(found)


# ruff: noqa: RUF001
# What an engine might take for its own language, and what it might take apart.
LITERAL = [
    *(
        '"',
        "'",
        '""',
        "''",
        "'; DROP TABLE transactions;--",
        '" OR "1"="1',
        "*",
        "a*",
        "%",
        "_",
        "?",
        "\\",
    ),
    *(
        "AND",
        "OR",
        "NOT",
        "NEAR(a b)",
        "NEAR",
        "a AND b",
        "a OR b",
        "(",
        ")",
        "^a",
        "-a",
        "+a",
        "a:b",
        "{a}",
    ),
    *(
        "a & b",
        "a | b",
        "!a",
        "a <-> b",
        "a:*",
        "$1",
        ":a",
        "@a",
        "#1",
        "x=1",
        "s=completed",
        "[a]",
        "~",
        "`",
    ),
    *(
        "😀",
        "👩‍👩‍👧",
        "🇨🇿",
        "ﷺ",
        "Žluťoučký",
        "ISPARTA ışık İstanbul",
        "straße",
        "ﬁn",
        "日本",
        "Ω",
        "٣",
        "é",
    ),
]


def test_a_search_is_literal_whatever_is_in_it(service: ServiceThread) -> None:
    post_entries(service, [{"metadata": {"name": f"<{text}>"}} for text in LITERAL])
    post_entries(service, [{"metadata": {"name": "nothing of the kind"}}])
    for text in LITERAL:
        found = names(find(service, {"search_query": text, "limit": 100}))
        assert f"<{text}>" in found, text
        assert "nothing of the kind" not in found, text
        # A text that is longer by a word that nowhere stands finds nothing.
        assert names(find(service, {"search_query": f"{text} elsewhere"})) == [], text
        exact = names(find(service, {"merchant_name": text}))
        assert exact == [], text
    # Neither an operator nor a pattern: each of these asks for its own signs, which few texts have.
    for text, few in (("%", 1), ("NEAR(", 1), ("a AND b", 1), ("^", 1), ("😀", 1), ("--", 3)):
        assert len(names(find(service, {"search_query": text}))) == few, text


def test_letters_are_found_without_their_case_and_accents(service: ServiceThread) -> None:
    post_entries(service, [{"metadata": {"name": "Příliš žluťoučký IŞIK İzmir Straße"}}])
    for text in (
        "prilis",
        "ŽLUŤOUČKÝ",
        "zlutoucky",
        "ışık",
        "isik",
        "IZMIR",
        "izmir",
        "strasse",
        "STRAßE",
    ):
        assert len(find(service, {"search_query": text})["items"]) == 1, text
    for text in ("prili", "zlutoucka", "izmi", "strase"):
        assert find(service, {"search_query": text})["items"] == [], text


WRONG = [
    *(
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=1.0",
        "limit=+1",
        "limit=%D9%A1",
        "limit=",
        "limit=1%0A",
    ),
    *("page=0", "page=1000001", "page=9999999999", "page=x", "page_size=0", "page_size=101"),
    *("limit=1&page=1", "limit=1&page_size=1", "limit=1&limit=1", "user_id=a&user_id=a"),
    *(
        "user_id=",
        "user_id=a%00b",
        f"user_id={'a' * 129}",
        "user_id=%FF",
        "usr_id=a",
        "Status=pending",
    ),
    *("transaction_type=Card", "transaction_type=", "product=card", "status=done", "currency=usd"),
    *("start_date=", "start_date=yesterday", "start_date=2026-02-30", "end_date=2026-13-01"),
    *("start_date=%222026-01-02%22", "start_date=1e99", "end_date=2026-01-02%0A", "end_date=NaN"),
    *("min_amount=", "min_amount=%221%22", "min_amount=1e-9", "max_amount=92233720368.54775808"),
    *(
        "max_amount=Infinity",
        "max_amount=0x1",
        "max_amount=1%0A",
        "min_amount=%201",
        "max_amount=1_0",
    ),
    *("merchant_name=a%00", "location=%ED%A0%80", "peer_name=%C3", "direction=%1B"),
    *("search_query=", "search_query=%20%09", f"search_query={'a' * 201}", "search_query=%E2%80%8B"),
    *("search_query=a&search_query=a", "q=a", "%00=1", "a%2Fb=1"),
]


@pytest.fixture(scope="module")
def in_memory() -> Iterator[ServiceThread]:
    with serve(Settings(database_url="memory://"), Clock(NOW_MS)) as service:
        yield service


@pytest.mark.parametrize("query", WRONG)
def test_a_wrong_parameter_is_refused_and_named(in_memory: ServiceThread, query: str) -> None:
    name = query.split("=")[0].replace("%00", "\0").replace("%2F", "~1")
    for path in PATHS:
        details = assert_problem(in_memory.client.get(f"{path}?{query}"), 422, "invalid_parameter")
        assert details["errors"][0]["pointer"] == f"/{name}"


def test_every_wrong_parameter_is_named(in_memory: ServiceThread) -> None:
    answer = in_memory.client.get("/transactions?status=x&product=y&page=0&a=b&location=%00")
    details = assert_problem(answer, 422, "invalid_parameter")
    assert {error["pointer"] for error in details["errors"]} == {
        *("/status", "/product", "/page", "/a", "/location")
    }


def test_filters_that_no_cursor_could_carry_are_refused(service: ServiceThread) -> None:
    long = {"merchant_name": "a" * 2700, "location": "b" * 2700}
    details = assert_problem(service.client.get("/transactions", params=long), 422, "invalid_parameter")
    assert details["errors"][0]["pointer"] == ""
    longest = {"merchant_name": "a" * 2500, "location": "b" * 2500}
    metadata = {**longest, "merchant_name": "a" * 1500, "location": "b" * 2500}
    post_entries(service, [{"metadata": metadata}] * 3)
    query: Query = {"merchant_name": "a" * 1500, "location": "b" * 2500, "limit": 1}
    page = find(service, query)
    for _ in range(2):
        page = find(service, {"cursor": page["next_cursor"], "limit": 1}, PATH.replace("/api/v1", ""))
    assert page["next_cursor"] is None
    assert service.client.get("/transactions", params=longest).status_code == 200


def test_without_a_token_the_feed_of_a_user_needs_a_user(service: ServiceThread) -> None:
    post_entries(service, [{}, {}])
    for query in ("", "?status=completed", "?page=1"):
        details = assert_problem(service.client.get(f"{PATH}{query}"), 400, "missing_user_id")
        assert details["detail"] == "user_id is required"
    # A cursor that names no user is of the other path, and says no more than its question did.
    everyone = find(service, {"limit": 1})["next_cursor"]
    assert_problem(service.client.get(PATH, params={"cursor": everyone}), 400, "missing_user_id")
    users = find(service, {"limit": 1, "user_id": USER}, PATH)["next_cursor"]
    assert len(find(service, {"cursor": users}, PATH)["items"]) == 1


@pytest.mark.parametrize(
    "identifier",
    [
        "x",
        "7",
        "019b7ca9-8f2e-7b40-8000",
        "019b7ca98f2e7b408000000f56782273",
        "%7Bid%7D",
        "a b",
        "'",
        "%00",
    ],
)
def test_a_malformed_id_is_400(service: ServiceThread, identifier: str) -> None:
    for path in PATHS:
        assert_problem(service.client.get(f"{path}/{identifier}"), 400, "malformed_identifier")


def test_an_id_there_is_not_is_404(service: ServiceThread) -> None:
    there = post_entry(service).json()["id"]
    other = there[:-1] + ("0" if there[-1] != "0" else "1")
    for path in PATHS:
        for identifier in (other, "0" * 8 + there[8:], "00000000-0000-0000-0000-000000000000"):
            assert_problem(service.client.get(f"{path}/{identifier}"), 404, "not_found")
    assert service.client.delete("/transactions").status_code == 204
    assert_problem(service.client.get(f"{PATH}/{there}"), 404, "not_found")
    assert find(service)["items"] == []


def test_deleted_entries_are_not_found_and_later_ones_are(service: ServiceThread) -> None:
    post_entries(service, [{"metadata": {"name": "before"}}] * 3)
    cursor = find(service, {"limit": 1})["next_cursor"]
    assert service.client.delete("/transactions").status_code == 204
    post_entries(service, [{"metadata": {"name": "after"}, "timestamp": 0}])
    assert names(find(service, {"cursor": cursor})) == ["after"]
    assert find(service, {"search_query": "before", "page": 1})["total"] == 0


@pytest.mark.parametrize("lane", list(Switch))
def test_an_id_with_more_behind_it_is_no_id_on_either_lane(lane: Switch) -> None:
    with serve(Settings(database_url="memory://", fast_lane=lane), Clock(NOW_MS)) as service:
        there = post_entry(service).json()["id"]
        base = str(service.client.base_url)
        for path in PATHS:
            for tail in (
                "%0A",
                "%0a",
                "%0D%0A",
                "%0A%0A",
                "%20",
                "%00",
                "%2F",
                "/",
                "/x",
                "?%0A=1",
                "%3F",
            ):
                for spelled in (there, there.upper(), there.replace("0", "%30")):
                    answer = service.client.get(f"{base}{path}/{spelled}{tail}")
                    expected = (200,) if tail.startswith("?") else (400, 404)
                    assert answer.status_code in expected, (path, spelled, tail)
            for head in ("%0A", "/", "%2F", "%20", "./%0A"):
                assert service.client.get(f"{base}{path}/{head}{there}").status_code in (400, 404)


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
