"""POST /transactions/batch: a verdict for each, one answer for all."""

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.core.transaction import BATCH_ITEMS_MAX
from app.settings import Settings
from tests.support.client import NOW_MS, WINDOW_MS, assert_problem, stats
from tests.support.thread import Clock, ServiceThread, serve

Item = dict[str, Any]
NDJSON = {"content-type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def running() -> Iterator[ServiceThread]:
    with serve(Settings(database_url="memory://"), Clock(NOW_MS)) as service:
        yield service


def good(**fields: object) -> Item:
    return {"amount": 1, "timestamp": NOW_MS, **fields}


LATE = good(timestamp=NOW_MS - WINDOW_MS - 1)
AHEAD = good(timestamp=NOW_MS + 1001)


def post(service: ServiceThread, items: object, query: str = "") -> httpx.Response:
    return service.client.post(f"/transactions/batch{query}", json=items)


def lines(service: ServiceThread, body: bytes, query: str = "") -> httpx.Response:
    path = f"/transactions/batch{query}"
    return service.client.post(path, content=body, headers=NDJSON)


def test_all_of_a_good_batch_is_counted(service: ServiceThread) -> None:
    answer = post(service, [good(amount="0.10", currency="EUR") for _ in range(1000)])
    assert answer.status_code == 200
    assert answer.text == '{"accepted":1000,"duplicate":0,"late":0,"rejected":0,"errors":[]}'
    assert '"EUR":{"sum":100.00,"avg":0.10' in service.client.get("/stats").text


def test_each_item_has_its_own_verdict_in_order(service: ServiceThread) -> None:
    items = [good(), LATE, 7, good(amount="x", currency="x"), AHEAD, good()]
    answer = post(service, items, "?ids=true").json()
    counts = {name: answer[name] for name in ("accepted", "duplicate", "late", "rejected")}
    assert counts == {"accepted": 2, "duplicate": 0, "late": 1, "rejected": 3}
    assert [(e["index"], e["code"], e.get("field")) for e in answer["errors"]] == [
        (2, "malformed_body", None),
        (3, "invalid_field", "amount"),
        (3, "invalid_field", "currency"),
        (4, "timestamp_ahead", "timestamp"),
    ]
    assert [identifier is not None for identifier in answer["ids"]] == [
        True, False, False, False, False, True
    ]  # fmt: skip
    assert stats(service)["count"] == 2


@pytest.mark.parametrize("poisoned", range(5))
def test_a_bad_item_sinks_no_good_one_wherever_it_stands(service: ServiceThread, poisoned: int) -> None:
    items: list[object] = [good() for _ in range(5)]
    items[poisoned] = good(amount=-1)
    answer = post(service, items).json()
    assert (answer["accepted"], answer["rejected"]) == (4, 1)
    assert answer["errors"][0]["index"] == poisoned
    assert stats(service)["count"] == 4


@pytest.mark.parametrize(
    ("bad", "pointer"), [(good(amount="x"), "/1/amount"), (AHEAD, "/1/timestamp"), ([], "/1")]
)
def test_an_atomic_batch_with_a_bad_item_keeps_nothing(
    service: ServiceThread, bad: object, pointer: str
) -> None:
    answer = post(service, [good(), bad], "?atomic=true")
    details = assert_problem(answer, 422, "invalid_field")
    assert details["errors"][0]["pointer"] == pointer
    assert stats(service)["count"] == 0


def test_late_is_not_bad_in_an_atomic_batch(service: ServiceThread) -> None:
    answer = post(service, [good(), LATE], "?atomic=true").json()
    assert (answer["accepted"], answer["late"]) == (1, 1)


def test_lines_are_items_and_blank_ones_are_none(service: ServiceThread) -> None:
    body = b"\n".join([json.dumps(good()).encode(), b"", b"{broken", b"\xff", b"  ", b'{"amount":1}'])
    answer = lines(service, body + b"\r\n").json()
    assert (answer["accepted"], answer["rejected"]) == (1, 3)
    assert [e["index"] for e in answer["errors"]] == [1, 2, 3]


def test_two_objects_on_one_line_are_no_item(service: ServiceThread) -> None:
    one = json.dumps(good()).encode()
    assert lines(service, one + one).json()["rejected"] == 1


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[", b'[{"amount":1}', b"null", b'["\xff"]', b"[" * 99_999]
)
def test_what_is_no_json_array_is_400(service: ServiceThread, body: bytes) -> None:
    answer = service.client.post("/transactions/batch", content=body)
    assert_problem(answer, 400, "malformed_body")


def test_an_empty_batch_is_fine(service: ServiceThread) -> None:
    for answer in (post(service, []), lines(service, b"")):
        assert answer.json()["accepted"] == 0


@pytest.mark.parametrize("item", ["{}", "1", json.dumps(good())])
def test_ten_thousand_items_are_taken_and_one_more_is_not(service: ServiceThread, item: str) -> None:
    items = [item] * BATCH_ITEMS_MAX
    answer = service.client.post("/transactions/batch", content=f"[{','.join(items)}]")
    assert answer.status_code == 200
    too_many = f"[{','.join([*items, item])}]"
    answer = service.client.post("/transactions/batch", content=too_many)
    assert_problem(answer, 413, "too_many_items")
    assert_problem(lines(service, "\n".join([*items, item]).encode()), 413, "too_many_items")


def test_a_body_past_8_mib_is_413_and_closes(service: ServiceThread) -> None:
    answer = service.client.post("/transactions/batch", content=b" " * (8 * 2**20 + 1))
    assert_problem(answer, 413, "body_too_large")
    assert answer.headers["connection"] == "close"


def test_millions_of_tiny_items_are_refused_before_they_cost_memory(service: ServiceThread) -> None:
    answer = service.client.post("/transactions/batch", content=b"[" + b"1," * 4_000_000 + b"1]")
    assert_problem(answer, 413, "too_many_items")


def test_many_commas_in_a_batch_do_not_make_it_many_items(service: ServiceThread) -> None:
    padding = ",".join("0" * 640_002)
    right = f'[{{"amount":1,"timestamp":{NOW_MS},"x":[{padding}]}}]'
    assert service.client.post("/transactions/batch", content=right).json()["accepted"] == 1
    wrong = f'[{{"amount":1,"timestamp":{NOW_MS}.5,"x":[{padding}]}}]'
    refusal = service.client.post("/transactions/batch", content=wrong)
    assert_problem(refusal, 413, "too_many_items")
    assert "commas" in refusal.json()["detail"]


@pytest.mark.parametrize("line", [b"\n", b" \r\n", b"xy\n"])
def test_megabytes_of_short_lines_are_not_taken_apart(service: ServiceThread, line: bytes) -> None:
    tracemalloc.start()
    answer = lines(service, line * (8 * 2**20 // len(line)))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer.status_code == (200 if line.isspace() else 413)
    assert peak_bytes < 64 * 2**20


@pytest.mark.parametrize(
    "query", ["atomic=1", "atomic=", "ids=yes", "atomics=true", "atomic=true&atomic=true"]
)
def test_a_wrong_option_is_refused(service: ServiceThread, query: str) -> None:
    assert_problem(post(service, [good()], f"?{query}"), 422, "invalid_parameter")
    assert stats(service)["count"] == 0


def test_a_batch_must_be_declared_json_or_nothing(service: ServiceThread) -> None:
    headers = {"content-type": "text/plain"}
    answer = service.client.post("/transactions/batch", content=b"[]", headers=headers)
    assert_problem(answer, 415, "unsupported_media_type")


def test_the_ids_of_a_batch_sort_in_its_order(service: ServiceThread) -> None:
    ids = post(service, [good() for _ in range(300)], "?ids=true").json()["ids"]
    assert ids == sorted(set(ids))
