"""Requests made from the description, right and wrong: no answer is an error of ours or undescribed."""

import os
import random
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.settings import Settings, Switch
from tests.support.client import LANES, NOW_MS
from tests.support.thread import WAIT_SECONDS, Clock, ServiceThread, serve

REQUESTS = int(os.environ.get("MILLRACE_FUZZ_REQUESTS", "3"))
SEED = int(os.environ.get("MILLRACE_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)

STREAM = "/stats/stream"

Operation = APIOperation[Any, Any, Any, Any]

CHECKS: list[CheckFunction] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@schemathesis.serializer("application/x-ndjson")
def as_lines(_: schemathesis.SerializationContext, value: object) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")


def takes_something(operation: Operation) -> bool:
    """Whether there is a wrong way to ask."""
    return bool(operation.body) or bool(operation.query)


def must_be_refused(case: Case[Any]) -> bool:
    """Whether one wrong thing spoils the whole: bad items of a batch sink no others."""
    return not case.path.endswith("/batch")


def begin(case: Case[Any], base_url: str, session: requests.Session) -> None:
    """Ask for a stream, which has no end that could be waited for; what is wrong is refused."""
    sent = case.as_transport_kwargs(base_url)
    with session.request(**sent, stream=True, timeout=WAIT_SECONDS) as answer:
        assert answer.status_code in (200, 422), answer.text
        if answer.status_code == 200:
            assert answer.headers["content-type"] == "text/event-stream"
            assert next(answer.iter_content(None)).startswith(b"retry: ")


def try_out(operation: Operation, mode: GenerationMode, service: ServiceThread) -> None:
    """Send requests, and hold their answers against the description. A hang is a timeout."""
    host, port = service.address
    session = requests.Session()
    is_right = mode is GenerationMode.POSITIVE

    @seed(SEED)
    @settings(
        max_examples=REQUESTS,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), is_now=st.booleans())
    def send(case: Case[Any], is_now: bool) -> None:
        if is_now and is_right and isinstance(case.body, dict):
            case.body["timestamp"] = NOW_MS  # Of those made up, hardly one lies in the window.
        base_url = f"http://{host}:{port}"
        if operation.path == STREAM:
            begin(case, base_url, session)
            return
        answer = case.call(base_url, session, timeout=WAIT_SECONDS)
        checks = list(CHECKS)
        if not is_right and must_be_refused(case):
            checks.append(negative_data_rejection)
        case.validate_response(answer, checks=checks)

    send()


@pytest.mark.parametrize("lane", LANES)
def test_no_request_made_from_the_description_is_answered_otherwise(lane: Switch) -> None:
    with serve(Settings(database_url="memory://", fast_lane=lane), Clock(NOW_MS)) as service:
        described = schemathesis.openapi.from_dict(service.client.get("/openapi.json").json())
        tried = 0
        for found in described.get_all_operations():
            assert isinstance(found, Ok)
            operation = found.ok()
            if operation.method == "head":
                continue  # Nothing to ask that GET was not asked.
            if lane is Switch.OFF and "Feed" in operation.definition.raw["tags"]:
                continue  # On either lane it takes the plain one.
            for mode in GenerationMode:
                if mode is GenerationMode.POSITIVE or takes_something(operation):
                    # So that there are figures, too.
                    body = {"amount": 1, "timestamp": NOW_MS, "currency": "EUR"}
                    assert service.client.post("/transactions", json=body).status_code == 201
                    print(f"MILLRACE_FUZZ_SEED={SEED}: {operation.label}, {mode.value}")
                    try_out(operation, mode, service)
                    tried += 1
        assert tried > 10
        assert service.failures == []
