"""What the feed refuses: parameters, ids and cursors that are wrong, and says which."""

from collections.abc import Iterator

import pytest

from app.settings import Settings, Switch
from tests.support.client import NOW_MS, assert_problem
from tests.support.feed import PATH, USER, Query, find, post_entries, post_entry
from tests.support.thread import Clock, ServiceThread, serve

PATHS = ["/transactions", PATH]


@pytest.fixture(scope="module")
def running(on_each_store: ServiceThread) -> ServiceThread:
    return on_each_store


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
