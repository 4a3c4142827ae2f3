"""A feed as a client uses it: entries in, pages out."""

import http.client
import json
from collections.abc import Iterable, Iterator
from typing import Any

import httpx

from tests.support.thread import ServiceThread

PATH = "/api/v1/transactions"
USER = "u-1"

Json = dict[str, Any]
Query = dict[str, str | int]


def post_entry(service: ServiceThread, **fields: object) -> httpx.Response:
    return service.client.post(PATH, json={"user_id": USER, "amount": 1, **fields})


def post_entries(service: ServiceThread, entries: list[Json]) -> None:
    for entry in entries:
        answer = post_entry(service, **entry)
        assert answer.status_code == 201, answer.text


def post_one_by_one(service: ServiceThread, entries: Iterable[Json]) -> Iterator[Json]:
    """Post entries over a connection of their own, each when it is asked for; what was answered."""
    connection = http.client.HTTPConnection(*service.address)
    for entry in entries:
        connection.request("POST", PATH, json.dumps({"user_id": USER, "amount": 1, **entry}))
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 201, content
        yield json.loads(content)
    connection.close()


def find(service: ServiceThread, query: Query | None = None, path: str = "/transactions") -> Json:
    """A page of the feed, which there must be."""
    answer = service.client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    page: Json = answer.json()
    return page


def names(page: Json) -> list[str]:
    """What its items are called in their metadata, in their order."""
    return [item["metadata"].get("name", "") for item in page["items"]]


def walk(service: ServiceThread, query: Query, path: str = "/transactions") -> list[Json]:
    """All items that a question finds, page by page."""
    items: list[Json] = []
    page = find(service, query, path)
    while True:
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        limit = {"limit": query["limit"]} if "limit" in query else {}
        page = find(service, {"cursor": page["next_cursor"], **limit}, path)
