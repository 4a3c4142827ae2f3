"""The contract as a client uses it: the moment it is, the ways to ask, the form of errors."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Authentication, Settings, Switch
from tests.support.issuer import AUDIENCE, ISSUER
from tests.support.thread import ServiceThread

NOW_MS = 1_767_323_045_678
NOW = "2026-01-02T03:04:05.678Z"
WINDOW_MS = 60_000

LANES = [pytest.param(Switch.ON, id="fast lane"), pytest.param(Switch.OFF, id="plain lane")]
STORES = [pytest.param("memory", id="memory"), pytest.param("sqlite", id="sqlite")]


def database_url(kind: str, path: Path) -> str:
    """That of one of STORES, kept in a directory."""
    return "memory://" if kind == "memory" else f"sqlite:///{path / 'ledger.db'}"


def post(service: ServiceThread, **fields: object) -> httpx.Response:
    fields = {"amount": 1, "timestamp": NOW_MS, **fields}
    return service.client.post("/transactions", json=fields)


def stats(service: ServiceThread, query: str = "") -> dict[str, Any]:
    """Statistics, which there must be."""
    answer = service.client.get(f"/stats{query}")
    assert answer.status_code == 200, answer.text
    figures: dict[str, Any] = answer.json()
    return figures


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Whether it is that error, in the one form of errors; what it says."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    details: dict[str, Any] = answer.json()
    assert details["status"] == status
    assert details["code"] == code
    assert details["title"]
    assert details["detail"]
    return details


def protected(lane: Switch = Switch.ON, **settings: Any) -> Settings:  # noqa: ANN401 - each of its own type
    """Settings under which tokens are asked for."""
    return Settings(
        database_url="memory://",
        fast_lane=lane,
        auth=Authentication.JWT,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        **settings,
    )


def ask(service: ServiceThread, token: str | bytes, scheme: str = "Bearer") -> httpx.Response:
    value = scheme.encode() + b" " + (token.encode() if isinstance(token, str) else token)
    return service.client.get("/stats", headers={b"authorization": value})


def assert_refused(answer: httpx.Response) -> None:
    assert_problem(answer, 401, "unauthorized")
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith('Bearer realm="millrace", error="invalid_token"')
