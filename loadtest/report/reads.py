"""`GET /stats` over a kept connection, with N transactions in the window and posts going on."""

import gc
import random
import time
from collections.abc import Iterator
from typing import Final

from loadtest.report.fill import Sent, Span, fill
from loadtest.report.plan import Plan
from loadtest.report.progress import Progress
from loadtest.report.results import ReadRun
from loadtest.report.service import Cores, Service
from loadtest.report.wire import Address, Connection, expect, get_request

# The longest there is: nothing leaves while N is measured.
WINDOW_SECONDS: Final = 3600
# What is left of the window is time to fill and to measure in, before the first one would leave.
FILL_SECONDS: Final = 3000

_WARM_READS_PER_READ: Final = 0.25


def measure_reads(
    plan: Plan, cores: Cores, batched: bool, seed: int, progress: Progress
) -> Iterator[ReadRun]:
    """A process for every N of every round, in an order drawn for each round."""
    for round_ in range(plan.rounds):
        order = plan.in_window(batched)
        random.Random(f"{seed} order {round_}").shuffle(order)
        for place, in_window in enumerate(order):
            progress.stage(f"GET /stats, N = {in_window}, round {round_ + 1} of {plan.rounds}")
            choose = random.Random(f"{seed} reads {round_} {in_window}")
            sent = Sent(choose)
            with Service(
                cores.service, DATABASE_URL="memory://", WINDOW_SECONDS=str(WINDOW_SECONDS)
            ) as service:
                now_ms = time.time_ns() // 1_000_000
                span = Span(now_ms - FILL_SECONDS * 1000, now_ms)
                started = time.monotonic()
                fill(service.address, sent, in_window, span, batched, progress.advance_rows)
                fill_seconds = time.monotonic() - started
                latencies_us = _read(service.address, sent, choose, plan)
                yield ReadRun(
                    in_window=in_window,
                    round=round_,
                    place=place,
                    fill_seconds=round(fill_seconds, 3),
                    posted=sent.count - in_window,
                    resident_mib=round(service.resident_mib(), 2),
                    latencies_us=latencies_us,
                )
            progress.advance()


def _read(address: Address, sent: Sent, choose: random.Random, plan: Plan) -> list[float]:
    interval_ns = 1_000_000_000 // plan.posts_per_second
    latencies_ns: list[int] = []
    warm = int(plan.reads * _WARM_READS_PER_READ)
    # A span of its own for each read: no answer can be one that was kept.
    requests = [
        get_request(f"/stats?window={choose.randint(1, WINDOW_SECONDS * 1000)}ms")
        for _ in range(warm + plan.reads)
    ]
    clock = time.perf_counter_ns
    with Connection(address) as reader, Connection(address) as poster:
        # One post of each currency first, so that every answer lists the same four.
        for _ in range(4):
            expect(poster.exchange(sent.post_of_now()), 201)
        gc.collect()
        gc.disable()
        post_due = clock()
        for request in requests:
            posting = clock() >= post_due
            if posting:
                poster.send(sent.post_of_now())
                post_due += interval_ns
            started = clock()
            answer = reader.exchange(request)
            latencies_ns.append(clock() - started)
            expect(answer, 200)
            if posting:
                expect(poster.receive(), 201)
        gc.enable()
        sent.check(reader)
    return [round(latency / 1000, 1) for latency in latencies_ns[warm:]]
