"""Questions to the feed and its search: each finds what it asks for, whatever is in it."""

# Letters that look alike are what is searched for.
# ruff: noqa: RUF001

import pytest

from tests.support.client import NOW
from tests.support.feed import PATH, USER, Json, Query, find, names, post_entries
from tests.support.thread import ServiceThread


@pytest.fixture(scope="module")
def running(on_each_store: ServiceThread) -> ServiceThread:
    return on_each_store


ENTRIES: list[Json] = [
    {"metadata": {"name": "plain"}},
    {"metadata": {"name": "bob's"}, "user_id": "bob"},
    {"metadata": {"name": "card", "card_last_four": "1234"}, "transaction_type": "card"},
    {"metadata": {"name": "product"}, "product": "P2P"},
    {"metadata": {"name": "pending"}, "status": "pending"},
    {"metadata": {"name": "koruna"}, "currency": "CZK"},
    {"metadata": {"name": "tiny"}, "amount": "0.00000001"},
    {"metadata": {"name": "huge"}, "amount": "92233720368.54775807"},
    {"metadata": {"name": "midnight"}, "timestamp": "2026-01-01"},
    {"metadata": {"name": "last"}, "timestamp": "2026-01-01T23:59:59.999Z"},
    {"metadata": {"name": "shop", "merchant_name": "Café Šárka", "merchant_category": "food"}},
    {"metadata": {"name": "city", "location": "Brno, CZ"}},
    {"metadata": {"name": "peer", "peer_name": "Eve", "peer_email": "eve@x.cz", "direction": "sent"}},
    {"metadata": {"name": "deep", "a": [{"b": "Brno or bust"}]}},
]

EVERY = {entry["metadata"]["name"] for entry in ENTRIES}


@pytest.fixture(scope="module")
def filled(running: ServiceThread) -> ServiceThread:
    assert running.client.delete("/transactions").status_code == 204
    post_entries(running, ENTRIES)
    return running


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, EVERY),
        ({"user_id": "bob"}, {"bob's"}),
        ({"user_id": "BOB"}, set()),
        ({"transaction_type": "card"}, {"card"}),
        ({"product": "P2P"}, {"product"}),
        ({"status": "pending"}, {"pending"}),
        ({"status": "completed"}, EVERY - {"pending"}),
        ({"currency": "CZK"}, {"koruna"}),
        ({"max_amount": "0.00000001"}, {"tiny"}),
        ({"max_amount": "0.99999999"}, {"tiny"}),
        ({"max_amount": "1e0"}, EVERY - {"huge"}),
        ({"min_amount": "92233720368.54775807"}, {"huge"}),
        ({"min_amount": "1.00000001", "max_amount": "1"}, set()),
        ({"min_amount": "-5"}, EVERY),
        ({"end_date": "2026-01-01"}, {"midnight", "last"}),
        ({"end_date": "2026-01-01T00:00:00Z"}, {"midnight"}),
        ({"end_date": "2025-12-31"}, set()),
        ({"start_date": "2026-01-01", "end_date": "2026-01-01"}, {"midnight", "last"}),
        ({"start_date": "2026-01-01T01:00:00+01:00", "end_date": "1767225600"}, {"midnight"}),
        ({"start_date": "1767311999999", "end_date": "1767311999999"}, {"last"}),
        ({"start_date": "1767311999.999", "end_date": "2026-01-01 23:59:59,999"}, {"last"}),
        ({"start_date": "2026-01-02"}, EVERY - {"midnight", "last"}),
        ({"start_date": NOW}, EVERY - {"midnight", "last"}),
        ({"start_date": "9999-12-31", "end_date": "9999-12-31"}, set()),
        ({"merchant_name": "Café Šárka"}, {"shop"}),
        ({"merchant_name": "café šárka"}, set()),
        ({"merchant_name": "Café"}, set()),
        ({"merchant_category": "food"}, {"shop"}),
        ({"card_last_four": "1234"}, {"card"}),
        ({"location": "Brno, CZ"}, {"city"}),
        ({"peer_name": "Eve", "peer_email": "eve@x.cz", "direction": "sent"}, {"peer"}),
        ({"peer_name": "Eve", "direction": "received"}, set()),
        ({"search_query": "brno"}, {"city", "deep"}),
        ({"search_query": "BRNO Bust"}, {"deep"}),
        ({"search_query": "cafe sarka"}, {"shop"}),
        ({"search_query": "brn"}, set()),
        ({"search_query": "eve@x.cz", "transaction_type": "card"}, set()),
    ],
    ids=str,
)
def test_a_question_finds_what_it_asks_for(filled: ServiceThread, query: Query, found: set[str]) -> None:
    assert set(names(find(filled, query))) == found
    user = {"user_id": USER, **query}
    expected = found if query.get("user_id") else found - {"bob's"}
    assert set(names(find(filled, user, PATH))) == expected
    assert find(filled, {**query, "page": 1})["total"] == len(found)


# What an engine might take for its own language, and what it might take apart.
LITERAL = [
    *(
        '"',
        "'",
        '""',
        "''",
        "'; DROP TABLE transactions;--",
        '" OR "1"="1',
        "*",
        "a*",
        "%",
        "_",
        "?",
        "\\",
    ),
    *(
        "AND",
        "OR",
        "NOT",
        "NEAR(a b)",
        "NEAR",
        "a AND b",
        "a OR b",
        "(",
        ")",
        "^a",
        "-a",
        "+a",
        "a:b",
        "{a}",
    ),
    *(
        "a & b",
        "a | b",
        "!a",
        "a <-> b",
        "a:*",
        "$1",
        ":a",
        "@a",
        "#1",
        "x=1",
        "s=completed",
        "[a]",
        "~",
        "`",
    ),
    *(
        "😀",
        "👩‍👩‍👧",
        "🇨🇿",
        "ﷺ",
        "Žluťoučký",
        "ISPARTA ışık İstanbul",
        "straße",
        "ﬁn",
        "日本",
        "Ω",
        "٣",
        "é",
    ),
]


def test_a_search_is_literal_whatever_is_in_it(service: ServiceThread) -> None:
    post_entries(service, [{"metadata": {"name": f"<{text}>"}} for text in LITERAL])
    post_entries(service, [{"metadata": {"name": "nothing of the kind"}}])
    for text in LITERAL:
        found = names(find(service, {"search_query": text, "limit": 100}))
        assert f"<{text}>" in found, text
        assert "nothing of the kind" not in found, text
        # A text that is longer by a word that nowhere stands finds nothing.
        assert names(find(service, {"search_query": f"{text} elsewhere"})) == [], text
        exact = names(find(service, {"merchant_name": text}))
        assert exact == [], text
    # Neither an operator nor a pattern: each of these asks for its own signs, which few texts have.
    for text, few in (("%", 1), ("NEAR(", 1), ("a AND b", 1), ("^", 1), ("😀", 1), ("--", 3)):
        assert len(names(find(service, {"search_query": text}))) == few, text


def test_letters_are_found_without_their_case_and_accents(service: ServiceThread) -> None:
    post_entries(service, [{"metadata": {"name": "Příliš žluťoučký IŞIK İzmir Straße"}}])
    for text in (
        "prilis",
        "ŽLUŤOUČKÝ",
        "zlutoucky",
        "ışık",
        "isik",
        "IZMIR",
        "izmir",
        "strasse",
        "STRAßE",
    ):
        assert len(find(service, {"search_query": text})["items"]) == 1, text
    for text in ("prili", "zlutoucka", "izmi", "strase"):
        assert find(service, {"search_query": text})["items"] == [], text
