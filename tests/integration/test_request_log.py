"""What is logged of single requests: samples of what was refused or slow, and nothing of a secret."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.web.request_log import SAMPLES_PER_SECOND_MAX
from tests.support.process import ServiceProcess

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"

WORKERS = [pytest.param("1", id="one process"), pytest.param("2", id="behind a front")]
LANES = [pytest.param("on", id="fast lane"), pytest.param("off", id="plain lane")]


def told(
    ask: Callable[[httpx.Client], object], **environment: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What a service logs of single requests until it has ended, and all that it logs."""
    with ServiceProcess(environment) as service:
        with service.client() as client:
            ask(client)
        service.terminate()
        assert service.exit_status() == 0
    events = service.events
    return [each for each in events if each["event"].startswith("request")], events


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("workers", WORKERS)
def test_a_refusal_is_logged_by_door_code_and_the_ids_its_caller_knows(
    workers: str, lane: str, tmp_path: Path
) -> None:
    secret = "4929-1234-5678"

    def ask(client: httpx.Client) -> None:
        headers = {"traceparent": PARENT, "x-request-id": "mine"}
        body = {"amount": secret, "user_id": f"user-{secret}"}
        keyed = {**headers, "idempotency-key": f"key-{secret}", "authorization": f"Bearer {secret}"}
        assert client.post("/transactions", json=body, headers=keyed).status_code == 422
        assert client.get(f"/stats?user={secret}", headers=headers).status_code == 422
        assert client.get(f"/transactions/{secret}").status_code == 400
        assert client.get(f"/of/{secret}", headers={"traceparent": f"{PARENT}x"}).status_code == 404
        assert client.post("/transactions", json={"amount": 1, "timestamp": 1}).status_code == 204

    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    lines, everything = told(ask, WORKERS=workers, FAST_LANE=lane, DATABASE_URL=url)
    known = {"request_id": "mine", "trace_id": TRACE}
    shown = [
        {name: value for name, value in line.items() if name not in ("ts", "level", "event")}
        for line in lines
    ]
    made = [line.pop("request_id") for line in shown[2:]]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in made)
    assert shown == [
        {"status": 422, "code": "invalid_field", "method": "POST", "path": "/transactions", **known},
        {"status": 422, "code": "invalid_parameter", "method": "GET", "path": "/stats", **known},
        {"status": 400, "code": "malformed_identifier", "method": "GET", "path": "/transactions/{id}"},
        {"status": 404, "code": "not_found", "method": "GET"},
    ]
    assert secret not in json.dumps(everything)


@pytest.mark.parametrize("lane", LANES)
def test_a_flood_of_refusals_is_logged_in_samples_and_all_of_it_counted(lane: str) -> None:
    number, left_out, seconds = 200, 0, 0
    with ServiceProcess({"FAST_LANE": lane}) as service, service.client() as client:
        for each in range(number):
            assert client.post("/transactions", json={"amount": each}).status_code == 422
        while left_out + seconds * SAMPLES_PER_SECOND_MAX < number:
            line = service.wait_for("requests_not_logged")
            assert (line["of"], line["status"]) == ("request_refused", 422)
            assert line["code"] == "invalid_field"
            left_out, seconds = left_out + line["number"], seconds + 1
        sampled = sum(line["event"] == "request_refused" for line in service.events)
    assert sampled + left_out == number
    assert sampled == seconds * SAMPLES_PER_SECOND_MAX


@pytest.mark.parametrize("workers", WORKERS)
def test_a_request_that_takes_long_is_logged_with_how_long(workers: str, tmp_path: Path) -> None:
    items = [{"amount": 1, "timestamp": 1}] * 10_000

    def ask(client: httpx.Client) -> None:
        headers = {"traceparent": PARENT}
        assert client.post("/transactions/batch", json=items, headers=headers).status_code == 200

    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    (line,), _ = told(ask, WORKERS=workers, SLOW_REQUEST_MS="1", LATE="keep", DATABASE_URL=url)
    assert (line["event"], line["level"], line["status"]) == ("request_slow", "warning", 200)
    assert (line["method"], line["path"], line["trace_id"]) == ("POST", "/transactions/batch", TRACE)
    assert line["ms"] >= 1


def test_a_start_shows_what_is_not_as_by_default_and_no_secret() -> None:
    environment = {
        "AUTH": "jwt",
        "JWT_SECRET": "correct horse battery staple, and then some",
        "JWT_ISSUER": "https://id.example",
        "JWT_AUDIENCE": "millrace",
        "WINDOW_SECONDS": "30",
        "LATE": "keep",
    }
    _, everything = told(lambda client: None, **environment)
    assert everything[0]["changed"] == {
        "port": 0,
        "database_url": "memory://",
        "window_seconds": 30,
        "late": "keep",
        "auth": "jwt",
        "jwt_secret": "(hidden)",
        "jwt_issuer": "https://id.example",
        "jwt_audience": "millrace",
    }
    assert "horse" not in json.dumps(everything)
