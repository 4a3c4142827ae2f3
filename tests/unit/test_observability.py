"""What is said of the metrics outside of the program: documents, dashboard, alerts, containers."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from app.core.histogram import Histogram
from app.ledger.condition import Condition, NodeCondition
from app.ledger.measures import Cooperation, Measures, StoreState
from app.ledger.outcomes import Outcomes
from app.web.counts import Counts, Tally
from app.web.exposition import FAMILIES, render
from app.web.metrics import Figures, Gathered
from tests.unit.test_compose import SERVICES

ROOT = Path(__file__).parents[2]
RULES_FILE = ROOT / "deploy" / "prometheus" / "alerts.yml"
RULES = yaml.safe_load(RULES_FILE.read_text("utf-8"))["groups"][0]["rules"]
SCRAPE = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8"))
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text("utf-8"))
PANELS = DASHBOARD["panels"]
TARGETS = [target["expr"] for panel in PANELS for target in panel["targets"]]
PROMTOOL = shutil.which("promtool")

# What Prometheus itself, and its client for any process, say under these names.
OF_ANY_PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes"}


def exposed() -> str:
    """All there can be, of a node of several with workers."""
    spread = Histogram((0.5, 1.0))
    spread.observe(0.7)
    others = [NodeCondition("b", Condition.HEALTHY, 40, 1.5)]
    measures = Measures(
        is_ready=True,
        store=StoreState.HEALTHY,
        queue_rows=1,
        commit_seconds=spread,
        commit_rows=spread,
        window_transactions=2,
        window_bytes=3,
        user_rows=4,
        cooperation=Cooperation(Condition.DEGRADED, 2, 40, -1.5, others),
    )
    counts = Counts()
    counts.know("/stats")
    counts.at("GET", "/stats")[200] += 5
    workers = {0: counts.tally(), 1: counts.tally()}
    total = Tally()
    for tally in workers.values():
        total.add(tally)
    return render(Figures(Gathered(total, workers, 1), measures, 6), "")[0].decode()


FOUND = {family.name: family for family in text_string_to_metric_families(exposed())}
NAMES = {sample.name for family in FOUND.values() for sample in family.samples}


def test_what_is_shown_is_what_is_listed() -> None:
    ours = {name for name in FOUND if name.startswith("millrace_")}
    assert ours == {name.removesuffix("_total") for name in FAMILIES}
    for name, (kind, meaning, labels) in FAMILIES.items():
        family = FOUND[name.removesuffix("_total")]
        assert family.documentation == meaning
        assert {kind} <= {CounterMetricFamily} if family.type == "counter" else True
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(labels), name


def test_names_and_units_are_the_conventional_ones() -> None:
    for name, (kind, meaning, _) in FAMILIES.items():
        assert re.fullmatch(r"millrace_[a-z]+(_[a-z]+)*", name)
        assert name.endswith("_total") is (kind is CounterMetricFamily)
        # Base units alone, and last.
        assert not re.search(r"_(ms|milliseconds|kb|mb|percent)(_|$)", name)
        for unit in ("seconds", "bytes", "rows"):
            assert f"_{unit}" not in name or name.removesuffix("_total").endswith(f"_{unit}"), name
        assert meaning.endswith(".")
        if kind is HistogramMetricFamily:
            assert name.endswith(("_seconds", "_rows"))


def test_nobody_waits_for_the_library_at_a_start() -> None:
    read = "import sys, app.server.front, app.server.serve; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", read], cwd=ROOT, text=True, capture_output=True)
    assert "app.web.metrics" in done.stdout.split()
    assert "prometheus_client" not in done.stdout.split()


def test_the_document_lists_every_metric() -> None:
    document = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    listed = re.findall(r"^\| `(millrace_\w+)` \| (\w+) \| (.*) \| (.+) \|$", document, re.MULTILINE)
    assert listed == [
        (
            name,
            family.kind.__name__.removesuffix("MetricFamily").lower(),
            " ".join(f"`{label}`" for label in family.labels),
            family.meaning,
        )
        for name, family in FAMILIES.items()
    ]


def metrics_of(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:millrace|process)_\w+", expression))


def test_the_dashboard_and_the_alerts_ask_for_what_there_is() -> None:
    known = NAMES | OF_ANY_PROCESS
    for expression in (*TARGETS, *(rule["expr"] for rule in RULES)):
        assert metrics_of(expression) <= known, expression
        for name, state in re.findall(r'(millrace_\w+)\{[^}]*\b(?:state|outcome)="(\w+)"', expression):
            values = {
                value for each in FOUND.values() for s in each.samples for value in s.labels.values()
            }
            assert state in values, (name, state)
    variables = [variable["query"] for variable in DASHBOARD["templating"]["list"][1:]]
    assert all(metrics_of(query["query"]) <= known for query in variables)


def test_every_metric_is_looked_at_somewhere() -> None:
    asked = metrics_of(" ".join((*TARGETS, *(rule["expr"] for rule in RULES))))
    asked |= {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    assert FAMILIES.keys() - asked == {
        "millrace_nodes",
        "millrace_node_clock_skew_seconds",
        "millrace_workers",
    }


def test_the_dashboard_can_be_imported_anywhere() -> None:
    assert (DASHBOARD["uid"], DASHBOARD["title"]) == ("millrace", "Millrace")
    assert "id" not in DASHBOARD
    source, *_ = DASHBOARD["templating"]["list"]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    used: list[Any] = [panel["datasource"] for panel in PANELS]
    used += [target["datasource"] for panel in PANELS for target in panel["targets"]]
    assert all(each["uid"] == "${datasource}" for each in used)
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    places = {
        (x, y)
        for panel in PANELS
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    }
    assert len(places) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in PANELS)
    assert max(x for x, _ in places) < 24


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Millrace")
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert len(rule["annotations"]["summary"]) > 20
    description = rule["annotations"]["description"]
    assert len(description) > 80
    assert description.endswith(".")


def test_the_containers_are_given_what_is_here() -> None:
    prometheus, grafana = SERVICES["prometheus"], SERVICES["grafana"]
    for service in (prometheus, grafana):
        assert service["profiles"] == ["observability"]
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])
        for volume in service["volumes"]:
            here, *_, mode = volume.split(":")
            assert not here.startswith(".") or ((ROOT / here).exists() and mode == "ro")
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "millrace.yml").read_text())["providers"]
    shown = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert shown.startswith(provider["options"]["path"] + "/")
    assert f"./deploy/grafana/dashboard.json:{shown}:ro" in grafana["volumes"]
    (job,) = SCRAPE["scrape_configs"]
    assert job["job_name"] == "millrace"
    assert job["static_configs"] == [{"targets": ["millrace:8000"]}]


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (Debian: apt-get install prometheus)")
def test_prometheus_takes_rules_and_metrics(tmp_path: Path) -> None:
    assert PROMTOOL
    for command in (
        ["check", "config", str(RULES_FILE.with_name("prometheus.yml"))],
        ["check", "metrics"],
    ):
        done = subprocess.run([PROMTOOL, *command], input=exposed(), text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(ALERTING), "utf-8")
    shutil.copy(RULES_FILE, tmp_path)
    done = subprocess.run(
        [PROMTOOL, "test", "rules", str(tmp_path / "tests.yml")], text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    told = ",".join(f'{key}="{value}"' for key, value in {"job": "millrace", **labels}.items())
    return {"series": f"{name}{{{told}}}", "values": values}


WELL = [
    series("up", "1x20", instance="a"),
    series("millrace_ready", "1x20", instance="a"),
    series("millrace_store_state", "0x20", instance="a", state="refusing"),
    series("millrace_transactions_total", "0+600x20", instance="a", outcome="accepted"),
    series("millrace_transactions_total", "0+1x20", instance="a", outcome="refused"),
    series("millrace_commit_duration_seconds_bucket", "0+60x20", instance="a", le="0.05"),
    series("millrace_commit_duration_seconds_bucket", "0+60x20", instance="a", le="0.25"),
    series("millrace_commit_duration_seconds_bucket", "0+60x20", instance="a", le="+Inf"),
]
ILL = [
    series("up", "1x20", instance="a"),
    series("millrace_ready", "0x20", instance="a"),
    series("millrace_store_state", "1x20", instance="a", state="refusing"),
    series("millrace_transactions_total", "0+600x20", instance="a", outcome="accepted"),
    series("millrace_transactions_total", "0+60x20", instance="a", outcome="refused"),
    series("millrace_commit_duration_seconds_bucket", "0+1x20", instance="a", le="0.05"),
    series("millrace_commit_duration_seconds_bucket", "0+60x20", instance="a", le="0.25"),
    series("millrace_commit_duration_seconds_bucket", "0+60x20", instance="a", le="+Inf"),
]


def alerting(told: list[dict[str, str]], firing: set[str]) -> dict[str, Any]:
    named = ["MillraceAbsent", "MillraceNotReady", "MillraceStoreRefuses", "MillraceRefuses"]
    return {
        "interval": "1m",
        "input_series": told,
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)',
                "eval_time": "15m",
                "exp_samples": [{"labels": "{}", "value": int(name in firing)}],
            }
            for name in (*named, "MillraceCommitsSlow")
        ],
    }


ALERTING = {
    "rule_files": ["alerts.yml"],
    "evaluation_interval": "1m",
    "tests": [
        alerting(WELL, set()),
        alerting([], {"MillraceAbsent"}),
        alerting(
            ILL, {"MillraceNotReady", "MillraceStoreRefuses", "MillraceRefuses", "MillraceCommitsSlow"}
        ),
    ],
}


def test_totals_are_the_sum_of_all_and_nothing_of_one_gets_lost() -> None:
    processes = []
    for number in (1, 2, 3):
        counts = Counts(Outcomes(accepted=number, late=2 * number))
        counts.at("GET", "/nowhere")[404] += number
        counts.of("GET", f"/{number}")[200] += 1
        counts.lag.observe(0.03)
        counts.connections_refused = number
        processes.append(counts.tally())
    total = Tally()
    for tally in processes:
        total.add(tally)
    assert total.outcomes == Outcomes(accepted=6, late=12)
    assert total.requests["GET unknown"] == {404: 6}
    assert all(total.requests[f"GET /{number}"] == {200: 1} for number in (1, 2, 3))
    assert (sum(total.lag.counts), round(total.lag.total, 6)) == (3, 0.09)
    assert total.connections_refused == 6
    # None of those that were added has changed.
    assert [tally.outcomes.accepted for tally in processes] == [1, 2, 3]


def test_a_histogram_counts_a_value_at_a_bound_below_it() -> None:
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 2, 3):
        histogram.observe(value)
    assert (histogram.counts, histogram.total) == ([2, 2, 1], 8)
