"""Writes figures as Prometheus reads them. Whatever is shown stands in `FAMILIES`, and nothing else."""

import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app import VERSION
from app.core.histogram import Histogram
from app.ledger.condition import Condition
from app.ledger.measures import Cooperation, StoreState
from app.web.metrics import Figures

_MS_PER_SECOND: Final = 1000

_EXCHANGE_STATES: Final = (Condition.HEALTHY, Condition.DEGRADED)

Samples = Iterable[tuple[Sequence[str], float]]
"""Values, each with those of its labels."""


class Family(NamedTuple):
    """What is shown under one name."""

    kind: type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]
    meaning: str
    labels: tuple[str, ...] = ()


FAMILIES: Final[Mapping[str, Family]] = {
    "millrace_build_info": Family(
        GaugeMetricFamily, "1, labelled with the versions of Millrace and Python.", ("version", "python")
    ),
    "millrace_ready": Family(
        GaugeMetricFamily, "1 while a transaction would be taken, as /readyz says, else 0."
    ),
    "millrace_transactions_total": Family(
        CounterMetricFamily,
        "Transactions that arrived, by what became of them: accepted, late, rejected (the caller's "
        "fault), duplicate, refused (503 and 429).",
        ("outcome",),
    ),
    "millrace_http_requests_total": Family(
        CounterMetricFamily,
        "Requests answered, by method, route and status.",
        ("method", "route", "status"),
    ),
    "millrace_http_connections": Family(GaugeMetricFamily, "Connections that are open."),
    "millrace_http_connections_refused_total": Family(
        CounterMetricFamily, "Connections there was no room for."
    ),
    "millrace_commit_duration_seconds": Family(
        HistogramMetricFamily, "How long the store took to keep a batch durably."
    ),
    "millrace_commit_batch_rows": Family(HistogramMetricFamily, "Rows of a batch that was kept."),
    "millrace_commit_queue_rows": Family(
        GaugeMetricFamily, "Transactions that wait to be kept, those of the commit under way included."
    ),
    "millrace_store_state": Family(
        GaugeMetricFamily,
        "1 for the state the store is in, 0 for the others: healthy, refusing (disk full, locked, not "
        "answering), failed (until a restart).",
        ("state",),
    ),
    "millrace_window_transactions": Family(
        GaugeMetricFamily, "Transactions in the window; absent while it is being read back."
    ),
    "millrace_window_memory_bytes": Family(
        GaugeMetricFamily, "Memory of the rings behind the statistics, to some percent."
    ),
    "millrace_user_rows": Family(
        GaugeMetricFamily, "Transactions held in memory for figures of single users."
    ),
    "millrace_feed_index_lag_rows": Family(
        GaugeMetricFamily, "Rows that the feed's index has not taken in yet; with SQLite only."
    ),
    "millrace_event_loop_lag_seconds": Family(
        HistogramMetricFamily,
        "How late the event loop gets to a timer that is due every 100 ms, in every process.",
    ),
    "millrace_nodes": Family(
        GaugeMetricFamily,
        "Nodes there are, this one included; with REDIS_URL only, as all of the nodes.",
    ),
    "millrace_exchange_state": Family(
        GaugeMetricFamily,
        "1 for the state the exchange is in, 0 for the other: healthy, degraded (it does not answer, or "
        "a node has gone without a word).",
        ("state",),
    ),
    "millrace_clock_skew_seconds": Family(
        GaugeMetricFamily, "How far this node's clock is ahead of most others'."
    ),
    "millrace_nodes_lag_seconds": Family(
        GaugeMetricFamily, "All that any node had counted so long ago is counted here."
    ),
    "millrace_node_healthy": Family(
        GaugeMetricFamily, "1 while that other node is heard, else 0.", ("node",)
    ),
    "millrace_node_lag_seconds": Family(
        GaugeMetricFamily, "All that node had counted so long ago is counted here.", ("node",)
    ),
    "millrace_node_clock_skew_seconds": Family(
        GaugeMetricFamily, "How far that node's clock is ahead of this one's.", ("node",)
    ),
    "millrace_workers": Family(
        GaugeMetricFamily, "Processes that serve connections; with WORKERS only, as all of the workers."
    ),
    "millrace_worker_restarts_total": Family(
        CounterMetricFamily, "Workers that died and were started again."
    ),
    "millrace_worker_cpu_seconds_total": Family(
        CounterMetricFamily, "Processor time of a worker since its start.", ("worker",)
    ),
    "millrace_worker_resident_memory_bytes": Family(
        GaugeMetricFamily, "Memory of a worker.", ("worker",)
    ),
}

# What there is a text for, by media type. The library repeats any version, and fails on what is none.
_VERSIONS: Final[Mapping[str, frozenset[str]]] = {
    "application/openmetrics-text": frozenset(("1.0.0",)),
    "text/plain": frozenset(("0.0.4", "1.0.0")),
}
_QUALITY: Final = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")

# Of the process that answers: that of the ledger.
_PROCESS: Final = ProcessCollector(registry=None)


def render(figures: Figures, accept: str) -> tuple[bytes, str]:
    """The text of Prometheus, or OpenMetrics where that is preferred; and its media type."""
    registry = CollectorRegistry()
    registry.register(_Shown(figures))
    registry.register(_PROCESS)
    encode, media_type = choose_encoder(_preferred(accept))
    return encode(registry), media_type


def _preferred(accept: str) -> str:
    """The media range that is preferred of those there is a text for, none where there is no such."""
    preferred, most = "", 0.0
    for media_range in accept.split(","):
        name, *parameters = (part.strip() for part in media_range.split(";"))
        told = [parameter.partition("=") for parameter in parameters]
        versions = {value for key, _, value in told if key == "version"}
        quality = next((value for key, _, value in told if key == "q"), "1")
        if name not in _VERSIONS or not versions <= _VERSIONS[name] or not _QUALITY.fullmatch(quality):
            continue
        if float(quality) > most:
            preferred, most = media_range, float(quality)
    return preferred


class _Shown(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def describe(self) -> Iterable[Metric]:
        """Nothing: no two are registered that could have the same names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All of it."""
        (total, workers, restarts), measures, feed_behind_rows = self._figures
        yield _family("millrace_build_info", [((VERSION, platform.python_version()), 1)])
        yield _value("millrace_ready", measures.is_ready)
        outcomes = total.outcomes
        yield _family(
            "millrace_transactions_total",
            [((name,), getattr(outcomes, name)) for name in outcomes.__struct_fields__],
        )
        yield _family(
            "millrace_http_requests_total",
            [
                ((*door.split(" "), str(status)), count)
                for door, statuses in sorted(total.requests.items())
                for status, count in sorted(statuses.items())
            ],
        )
        yield _value("millrace_http_connections", total.connections)
        yield _value("millrace_http_connections_refused_total", total.connections_refused)
        yield _histogram("millrace_commit_duration_seconds", measures.commit_seconds)
        yield _histogram("millrace_commit_batch_rows", measures.commit_rows)
        yield _value("millrace_commit_queue_rows", measures.queue_rows)
        yield _states("millrace_store_state", StoreState, measures.store)
        if measures.window_transactions is not None:
            yield _value("millrace_window_transactions", measures.window_transactions)
        yield _value("millrace_window_memory_bytes", measures.window_bytes)
        yield _value("millrace_user_rows", measures.user_rows)
        if feed_behind_rows is not None:
            yield _value("millrace_feed_index_lag_rows", feed_behind_rows)
        yield _histogram("millrace_event_loop_lag_seconds", total.lag)
        if measures.cooperation is not None:
            yield from _of_nodes(measures.cooperation)
        if workers:
            yield _value("millrace_workers", len(workers))
            yield _value("millrace_worker_restarts_total", restarts)
            cpu = [((str(index),), tally.cpu_seconds) for index, tally in workers.items()]
            yield _family("millrace_worker_cpu_seconds_total", cpu)
            memory = [((str(index),), tally.resident_bytes) for index, tally in workers.items()]
            yield _family("millrace_worker_resident_memory_bytes", memory)


def _of_nodes(cooperation: Cooperation) -> Iterator[Metric]:
    yield _value("millrace_nodes", cooperation.nodes)
    yield _states("millrace_exchange_state", _EXCHANGE_STATES, cooperation.exchange)
    yield _value("millrace_clock_skew_seconds", cooperation.clock_skew_ms / _MS_PER_SECOND)
    yield _value("millrace_nodes_lag_seconds", cooperation.lag_ms / _MS_PER_SECOND)
    others = cooperation.others
    yield _family(
        "millrace_node_healthy",
        [((each.node,), each.condition is Condition.HEALTHY) for each in others],
    )
    yield _family(
        "millrace_node_lag_seconds", [((each.node,), each.lag_ms / _MS_PER_SECOND) for each in others]
    )
    yield _family(
        "millrace_node_clock_skew_seconds",
        [((each.node,), each.clock_skew_ms / _MS_PER_SECOND) for each in others],
    )


def _family(name: str, samples: Samples) -> Metric:
    kind, meaning, labels = FAMILIES[name]
    family = (CounterMetricFamily if kind is CounterMetricFamily else GaugeMetricFamily)(
        name, meaning, labels=labels
    )
    for values, value in samples:
        family.add_metric(values, float(value))
    return family


def _value(name: str, value: float) -> Metric:
    return _family(name, [((), value)])


def _states(
    name: str, states: Iterable[StoreState | Condition], state: StoreState | Condition
) -> Metric:
    return _family(name, [((each.value,), each is state) for each in states])


def _histogram(name: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(name, FAMILIES[name].meaning)
    bounds = [*map(str, map(float, histogram.bounds)), "+Inf"]
    family.add_metric((), list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.total)
    return family
