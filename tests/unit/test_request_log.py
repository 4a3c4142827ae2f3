"""Samples of what is refused and slow, and the trace that a caller names."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from app.settings import Settings
from app.web.answers import json_answer
from app.web.counts import Statuses
from app.web.request_log import SAMPLES_PER_SECOND_MAX, UNREAD, RequestLog
from app.web.slots import Slots
from app.web.trace import trace_id, trace_of
from tests.support.wire import Wire

TRACE = b"0af7651916cd43dd8448eb211c80319c"
PARENT = b"b7ad6b7169203331"


class Loop:
    """A clock that is set, and calls that wait for their time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[Callable[[], object]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[[], object]) -> None:
        assert seconds == 1.0
        self.calls.append(call)

    def end_second(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def test_of_each_kind_a_few_are_logged_in_a_second_and_the_others_counted() -> None:
    loop = Loop()
    request_log = RequestLog(cast(Any, loop), 10)
    bodies = {b'{"code":"a"}': 12, b'{"code":"b"}': SAMPLES_PER_SECOND_MAX, b"\xff": 7}
    with capture_logs() as logged:
        for body, number in bodies.items():
            for _ in range(number):
                request_log.refused(422, body, UNREAD)
        request_log.slow(201, 0.01, UNREAD)
    counted = [(line["event"], line.get("code")) for line in logged]
    few = SAMPLES_PER_SECOND_MAX
    assert counted == [
        *[("request_refused", code) for code in ("a", "b", "") for _ in range(few)],
        ("request_slow", None),
    ]
    with capture_logs() as logged:
        loop.end_second()
    assert [(line["of"], line.get("code"), line["number"]) for line in logged] == [
        ("request_refused", "a", 12 - few),
        ("request_refused", None, 7 - few),
    ]
    with capture_logs() as logged:
        loop.end_second()
        request_log.refused(422, b'{"code":"a"}', UNREAD)
    assert len(logged) == 1


@pytest.mark.parametrize(("waited_seconds", "is_slow"), [(0.9, False), (1.0, True)])
def test_an_answer_that_waited_long_for_its_turn_is_slow(waited_seconds: float, is_slow: bool) -> None:
    loop, wire = Loop(), Wire()
    request_log = RequestLog(cast(Any, loop), Settings().slow_request_ms)
    slots = Slots(cast(Any, loop), wire, lambda: True, lambda: None, request_log)
    statuses = Statuses(int)
    slot = slots.add(None, loop.now, None, statuses)
    loop.now += waited_seconds
    with capture_logs() as logged:
        slot(json_answer(HTTPStatus.OK, b"{}"))
    assert [line["ms"] for line in logged] == [1000] * is_slow
    assert statuses == {200: 1}


def test_zero_milliseconds_is_never_slow() -> None:
    assert RequestLog(cast(Any, Loop()), 0).slow_seconds == float("inf")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"00-%b-%b-01" % (TRACE, PARENT), TRACE),
        (b"00-%b-%b-ff" % (TRACE, PARENT), TRACE),
        # A later version may say more, this one may not.
        (b"01-%b-%b-01" % (TRACE, PARENT), TRACE),
        (b"01-%b-%b-01-more" % (TRACE, PARENT), TRACE),
        (b"00-%b-%b-01-more" % (TRACE, PARENT), None),
        (b"00-%b-%b-01-" % (TRACE, PARENT), None),
        (b"01-%b-%b-01more" % (TRACE, PARENT), None),
        (b"ff-%b-%b-01" % (TRACE, PARENT), None),
        (b"00-%b-%b-01\n" % (TRACE, PARENT), None),
        (b" 00-%b-%b-01" % (TRACE, PARENT), None),
        (b"00-%b-%b-1" % (TRACE, PARENT), None),
        (b"00-%b-%b-01" % (TRACE.upper(), PARENT), None),
        (b"00-%b-%b-01" % (b"0" * 32, PARENT), None),
        (b"00-%b-%b-01" % (TRACE, b"0" * 16), None),
        (b"00-%b-%b-01" % (TRACE[1:], PARENT), None),
        (b"", None),
    ],
)
def test_a_trace_is_read_strictly(value: bytes, found: bytes | None) -> None:
    assert trace_id(value) == found


def test_of_two_traces_none_is_believed() -> None:
    header = (b"traceparent", b"00-%b-%b-01" % (TRACE, PARENT))
    assert trace_of([header]) == TRACE
    assert trace_of([header, header]) is None
    assert trace_of([]) is None
