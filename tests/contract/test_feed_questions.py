"""Questions to the feed against a plain list: whatever is asked, the list has the same answer."""

# Letters that look alike are what this is about.
# ruff: noqa: RUF001

from collections.abc import Iterator
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.settings import Settings
from tests.support.client import NOW_MS, STORES, database_url
from tests.support.feed import Json, Query, find, post_one_by_one, walk
from tests.support.thread import Clock, ServiceThread, serve

# Each word as it is written here and there; no two of them are one.
SPELLINGS = [
    ["café", "CAFE", "Cafe\u0301"],
    ["straße", "STRASSE"],
    ["ışık", "isik"],
    ["žluťoučký", "ZLUTOUCKY"],
    ["日"],
    ["😀"],
    ["%"],
    ["'"],
    ["and"],
    ["near"],
    ["42"],
]  # fmt: skip
GAPS = [" ", "  ", "\n", " \t"]

ENTRIES = 60


def entry(number: int) -> Json:
    """An entry of which each property comes and goes at a pace of its own."""
    spoken = [(number * step + step) % len(SPELLINGS) for step in (1, 3)]
    text = GAPS[number % 4].join(
        SPELLINGS[word][number % len(SPELLINGS[word])] for word in spoken[: number % 3]
    )
    return {
        "user_id": f"u-{number % 3}",
        "amount": str(Decimal(number * 7 % 40) / 8),
        "currency": ["EUR", "USD", "BTC"][number % 5 % 3],
        "transaction_type": [None, "card", "p2p", "top_up"][number % 4],
        "product": [None, "Card", "P2P"][number % 7 % 3],
        "status": ["completed", "pending", "failed"][number % 11 % 3],
        "timestamp": NOW_MS - number * 13 % 20 * 1000,
        "metadata": {
            "number": number,
            "location": ["Brno", "Praha", "brno"][number % 6 % 3],
            "direction": ["in", "out"][number % 2],
            "free": [{"text": text}],
        },
        "spoken": spoken[: number % 3],
    }


ALL = [entry(number) for number in range(ENTRIES)]
INSTANTS = st.integers(NOW_MS - 21_000, NOW_MS + 1000)
AMOUNTS = st.integers(-1, 41).map(lambda eighths: str(Decimal(eighths) / 8))

QUESTIONS = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.sampled_from(["u-0", "u-1", "u-2", "U-0"]),
        "currency": st.sampled_from(["EUR", "USD", "BTC", "CHF"]),
        "transaction_type": st.sampled_from(["card", "p2p", "top_up", "crypto"]),
        "product": st.sampled_from(["Card", "P2P", "Earnings"]),
        "status": st.sampled_from(["completed", "pending", "failed"]),
        "location": st.sampled_from(["Brno", "Praha", "brno", "Brn"]),
        "direction": st.sampled_from(["in", "out"]),
        "start_date": INSTANTS,
        "end_date": INSTANTS,
        "min_amount": AMOUNTS,
        "max_amount": AMOUNTS,
        "search_query": st.lists(st.sampled_from(range(len(SPELLINGS))), min_size=1, max_size=2),
    },
)


def is_asked_for(one: Json, question: Json) -> bool:
    metadata, amount = one["metadata"], Decimal(one["amount"])
    return (
        all(
            one[name] == question.get(name, one[name])
            for name in ("user_id", "currency", "transaction_type", "product", "status")
        )
        and all(
            metadata[name] == question.get(name, metadata[name]) for name in ("location", "direction")
        )
        and question.get("start_date", 0) <= one["timestamp"] <= question.get("end_date", NOW_MS)
        and Decimal(question.get("min_amount", 0)) <= amount <= Decimal(question.get("max_amount", 99))
        and set(question.get("search_query", ())) <= set(one["spoken"])
    )


@pytest.fixture(scope="module", params=STORES)
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceThread]:
    url = database_url(request.param, tmp_path_factory.mktemp("feed"))
    with serve(Settings(database_url=url), Clock(NOW_MS)) as service:
        list(post_one_by_one(service, ALL))
        yield service


@given(question=QUESTIONS, spelling=st.integers(0, 2), limit=st.integers(1, 25))
@settings(deadline=None, max_examples=40)
def test_a_question_finds_what_a_plain_list_would(
    service: ServiceThread, question: Json, spelling: int, limit: int
) -> None:
    wanted = [one for one in ALL if is_asked_for(one, question)]
    wanted.sort(key=lambda one: (one["timestamp"], one["metadata"]["number"]), reverse=True)
    numbers = [one["metadata"]["number"] for one in wanted]
    query: Query = dict(question)
    if "search_query" in question:
        spoken = (SPELLINGS[word] for word in question["search_query"])
        query["search_query"] = " ".join(each[spelling % len(each)] for each in spoken)
    items = walk(service, {**query, "limit": limit})
    assert [item["metadata"]["number"] for item in items] == numbers
    page = find(service, {**query, "page": 2, "page_size": limit})
    assert page["total"] == len(numbers)
    assert [item["metadata"]["number"] for item in page["items"]] == numbers[limit : 2 * limit]


def test_the_list_tells_entries_apart() -> None:
    """A question of each kind finds some and leaves some."""
    questions: list[Json] = [
        {"user_id": "u-1"},
        {"product": "P2P"},
        {"start_date": NOW_MS - 9000},
        {"max_amount": "2.5"},
        *({"search_query": [word]} for word in range(len(SPELLINGS))),
    ]
    for question in questions:
        assert 0 < sum(is_asked_for(one, question) for one in ALL) < ENTRIES, question
