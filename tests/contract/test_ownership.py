"""Whose rows are whose: on every door, on every page, with every token."""

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from tests.support.attacks import NOW_MS, secret_mint
from tests.support.client import STORES, assert_problem, database_url, protected
from tests.support.feed import PATH, Json, Query
from tests.support.issuer import SECRET
from tests.support.thread import Clock, ServiceThread, serve

PATHS = ["/transactions", PATH]
USERS = ["alice", "bob", "Alice", "alice "]
OWN = "transactions:write transactions:read"
ALL = "transactions:read_all"


@pytest.fixture(scope="module", params=STORES)
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceThread]:
    """A service with three rows of each of some users."""
    url = database_url(request.param, tmp_path_factory.mktemp("feed"))
    settings = msgspec.structs.replace(protected(jwt_secret=SECRET), database_url=url)
    with serve(settings, Clock(NOW_MS)) as service:
        for user in USERS:
            for number in range(3):
                metadata = {"name": f"{user} {number}", "location": "Brno"}
                answer = send(service, user, "POST", PATH, json={"amount": 1, "metadata": metadata})
                assert answer.status_code == 201
                assert answer.json()["user_id"] == user
        yield service


def send(
    service: ServiceThread,
    subject: str,
    method: str,
    target: str,
    scope: str = OWN,
    **more: Any,  # noqa: ANN401 - what httpx takes
) -> httpx.Response:
    token = secret_mint(claims={"sub": subject, "scope": scope})
    headers = {"authorization": f"Bearer {token}"}
    return service.client.request(method, target, headers=headers, **more)


def find(
    service: ServiceThread,
    subject: str,
    query: Query | None = None,
    path: str = PATH,
    scope: str = OWN,
) -> Json:
    answer = send(service, subject, "GET", path, scope, params=query)
    assert answer.status_code == 200, answer.text
    page: Json = answer.json()
    return page


def owners(page: Json) -> list[str]:
    return [item["user_id"] for item in page["items"]]


QUERIES: list[Query] = [
    {},
    {"limit": 100},
    {"page": 1, "page_size": 100},
    {"location": "Brno"},
    {"search_query": "brno"},
    {"search_query": "alice"},
    {"status": "completed", "min_amount": "0"},
]


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_user_finds_their_own_rows_and_no_others(service: ServiceThread, query: Query) -> None:
    for path in PATHS:
        for user in USERS:
            mine = [] if query.get("search_query") == "alice" and user == "bob" else [user] * 3
            for named in ({}, {"user_id": user}):
                page = find(service, user, {**query, **named}, path)
                assert owners(page) == mine
                assert page.get("total", 3) == 3
    assert owners(find(service, "carol", query)) == []


def test_another_users_rows_may_not_be_asked_for(service: ServiceThread) -> None:
    for path in PATHS:
        for subject, user in (
            ("alice", "bob"),
            ("bob", "alice"),
            ("alice", "Alice"),
            ("alice", "alice "),
        ):
            for query in QUERIES:
                answer = send(service, subject, "GET", path, params={**query, "user_id": user})
                assert_problem(answer, 403, "forbidden")
            assert_problem(
                send(service, subject, "GET", path, params={"user_id": "carol"}), 403, "forbidden"
            )


def test_another_users_row_is_as_if_it_were_not_there(service: ServiceThread) -> None:
    hers = find(service, "alice")["items"][0]["id"]
    nobodys = hers[:-1] + ("0" if hers[-1] != "0" else "1")
    for path in PATHS:
        assert send(service, "alice", "GET", f"{path}/{hers}").status_code == 200
        there = send(service, "bob", "GET", f"{path}/{hers}")
        not_there = send(service, "bob", "GET", f"{path}/{nobodys}")
        assert_problem(there, 404, "not_found")
        assert there.content == not_there.content
        assert send(service, "bob", "HEAD", f"{path}/{hers}").status_code == 404


def test_every_door_of_the_feed_asks_for_a_token_and_its_scope(service: ServiceThread) -> None:
    hers = find(service, "alice")["items"][0]["id"]
    doors = [("GET", target) for path in PATHS for target in (path, f"{path}/{hers}", f"{path}/x")]
    doors += [("HEAD", target) for _, target in doors]
    for method, target in doors:
        assert service.client.request(method, target).status_code == 401
        for scope in ("", "transactions:write stats:read transactions:delete"):
            assert send(service, "alice", method, target, scope).status_code == 403
    assert service.client.post(PATH, json={"amount": 1}).status_code == 401
    for scope in ("transactions:read", ALL):
        assert send(service, "alice", "POST", PATH, scope, json={"amount": 1}).status_code == 403


def test_a_cursor_is_no_permission(service: ServiceThread) -> None:
    for path in PATHS:
        for first in ({}, {"user_id": "alice"}):
            cursor = find(service, "alice", {"limit": 1, **first}, path)["next_cursor"]
            for other in PATHS:
                for named in ({}, {"user_id": "alice"}):
                    params = {"cursor": cursor, **named}
                    assert_problem(send(service, "bob", "GET", other, params=params), 403, "forbidden")
                second = find(service, "alice", {"cursor": cursor, "limit": 1}, other)
                assert owners(second) == ["alice"]
                # Nor is the one behind it.
                params = {"cursor": second["next_cursor"]}
                assert_problem(send(service, "bob", "GET", other, params=params), 403, "forbidden")
                assert_problem(
                    send(service, "bob", "GET", other, params={"cursor": cursor, "user_id": "bob"}),
                    422,
                    "invalid_parameter",
                )


def test_whoever_may_read_all_sees_all(service: ServiceThread) -> None:
    hers = find(service, "alice")["items"][0]["id"]
    for path in PATHS:
        assert send(service, "eve", "GET", f"{path}/{hers}", ALL).json()["user_id"] == "alice"
        for user in USERS:
            assert owners(find(service, "eve", {"user_id": user}, path, ALL)) == [user] * 3
        # Who does not say whose rows asks for their own, as everyone does.
        assert owners(find(service, "eve", {}, path, ALL)) == []
        assert owners(find(service, "bob", {}, path, ALL)) == ["bob"] * 3
        cursor = find(service, "eve", {"user_id": "bob", "limit": 1}, path, ALL)["next_cursor"]
        assert owners(find(service, "eve", {"cursor": cursor}, path, ALL)) == ["bob"] * 2
        assert owners(find(service, "bob", {"cursor": cursor}, path)) == ["bob"] * 2
        # Without the scope, the same cursor leads on no more.
        answer = send(service, "eve", "GET", path, params={"cursor": cursor})
        assert_problem(answer, 403, "forbidden")


def test_a_writer_may_name_any_user(service: ServiceThread) -> None:
    body = {"amount": 1, "user_id": "dave"}
    answer = send(service, "alice", "POST", PATH, json=body)
    assert (answer.status_code, answer.json()["user_id"]) == (201, "dave")
    assert send(service, "alice", "GET", f"{PATH}/{answer.json()['id']}").status_code == 404
    assert owners(find(service, "dave")) == ["dave"]


def test_keys_of_entries_belong_to_their_callers(service: ServiceThread) -> None:
    def post(subject: str) -> Json:
        token = secret_mint(claims={"sub": subject, "scope": OWN})
        headers = {"authorization": f"Bearer {token}", "idempotency-key": "same"}
        answer = service.client.post(PATH, json={"amount": 1}, headers=headers)
        assert answer.status_code == 201
        told: Json = answer.json()
        return told

    first, other = post("frank"), post("grace")
    assert (first["user_id"], other["user_id"]) == ("frank", "grace")
    assert first["id"] != other["id"]
    assert post("frank") == first
