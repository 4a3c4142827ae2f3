"""What was measured: the raw figures, as they stand in the JSON."""

from typing import Final

import msgspec

from loadtest.report.plan import Plan

LADDER_STEPS: Final = 1000


class ReadRun(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /stats` of one process with so many transactions in its window."""

    in_window: int
    round: int
    place: int
    """Which of its round's processes it was, from 0: the order is drawn anew in each round."""
    fill_seconds: float
    posted: int
    """What was posted beside the reads, so that the window held so many more at the end."""
    resident_mib: float
    latencies_us: list[float]


class BareRun(msgspec.Struct, frozen=True, kw_only=True):
    """Reads of a bare structure, without a service around it."""

    structure: str
    in_window: int
    round: int
    latencies_us: list[float]


class EdgeError(msgspec.Struct, frozen=True, kw_only=True):
    """How far counts are off at one instant, in percent of the exact count."""

    structure: str
    span_seconds: int
    elapsed_ms: list[int]
    percent: list[float]


class LoadRun(msgspec.Struct, frozen=True, kw_only=True):
    """Posts, or reads beside them, under one load. A ladder's step k is the k-th thousandth."""

    store: str
    load: str
    round: int
    request: str
    offered_per_second: float | None
    """Of this request; None where the next one waits for an answer: the closed loop."""
    answered_per_second: float
    failed: int
    """Answered with something else than success, or not at all."""
    from_schedule_ms: list[float]
    from_send_ms: list[float]
    client_late_ms: float
    """How late the client itself was to send, at the 99th percentile."""
    service_busy_percent: float


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """Where, when and with what it was measured."""

    date: str
    command: str
    plan: Plan
    seed: int
    seconds: float
    machine: dict[str, str]
    versions: dict[str, str]
    notes: list[str]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One whole measurement."""

    circumstances: Circumstances
    reads: list[ReadRun]
    bare: list[BareRun]
    edge_errors: list[EdgeError]
    loads: list[LoadRun]
