"""What the service says of itself, read as Prometheus would."""

from collections import Counter

import httpx
from prometheus_client.parser import text_string_to_metric_families

Sample = tuple[str, tuple[tuple[str, str], ...]]
"""A name, and its labels with their values."""


def samples(text: str) -> dict[Sample, float]:
    """Every value there is."""
    found: dict[Sample, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def scrape(client: httpx.Client) -> dict[Sample, float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return samples(answer.text)


def outcomes(found: dict[Sample, float]) -> Counter[str]:
    """Transactions by what became of them."""
    return Counter(
        {
            labels[0][1]: int(value)
            for (name, labels), value in found.items()
            if name == "millrace_transactions_total"
        }
    )


def requests(found: dict[Sample, float]) -> Counter[str]:
    """Requests, as `POST /transactions 201`; but for those of metrics themselves."""
    told: Counter[str] = Counter()
    for (name, labels), value in found.items():
        if name == "millrace_http_requests_total":
            of = dict(labels)
            told[f"{of['method']} {of['route']} {of['status']}"] = int(value)
    return Counter({door: count for door, count in told.items() if "/metrics" not in door})
