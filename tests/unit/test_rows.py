"""Rows of a file as they are sent: now, or as history."""

import io
import json
from pathlib import Path

import pytest

from loadtest.rows import HistoryRow, UnreadableError, read_rows

SAMPLE = Path(__file__).parents[2] / "loadtest" / "data" / "transactions.ndjson"

RETAIL = (
    '{"user_id":"retail-1","amount":"12.60","currency":"GBP","timestamp":"2010-12-01T08:34:00",'
    '"transaction_type":"invoice","product":"POPPY\'S \\"HOUSE\\" ","metadata":{"quantity":"6"}}'
)
CARD = (
    '{"user_id":"calderdale-2","amount":"8.33","currency":"GBP","timestamp":"2009-09-10",'
    '"metadata":{"merchant_name":"O2(UK)LTD PREPAY"}}'
)
FLOW = (
    '{"user_id":"fts-3","amount":5,"timestamp":1.5,"transaction_type":"Standard","status":"paid",'
    '"metadata":{"merchant_name":"Médecins","description":"aid"}}'
)


def history(*lines: str) -> list[HistoryRow]:
    rows = list(read_rows(io.BytesIO("\n".join(lines).encode()), as_history=True))
    assert all(isinstance(row, HistoryRow) for row in rows)
    return [row for row in rows if isinstance(row, HistoryRow)]


def test_a_source_words_go_into_the_metadata_beside_what_it_says_already() -> None:
    retail, card, flow = (json.loads(row.body(0)) for row in history(RETAIL, CARD, FLOW))
    assert retail == {
        "user_id": "retail-1",
        "amount": "12.60",
        "currency": "GBP",
        "timestamp": "2010-12-01T08:34:00",
        "metadata": {"quantity": "6", "source_type": "invoice", "description": 'POPPY\'S "HOUSE" '},
    }
    assert card == {
        "user_id": "calderdale-2",
        "amount": "8.33",
        "currency": "GBP",
        "timestamp": "2009-09-10",
        "transaction_type": "card",
        "metadata": {"merchant_name": "O2(UK)LTD PREPAY"},
    }
    assert flow == {
        "user_id": "fts-3",
        "amount": 5,
        "timestamp": 1.5,
        "metadata": {
            "merchant_name": "Médecins",
            "description": "aid",
            "source_type": "Standard",
            "source_status": "paid",
        },
    }


def test_what_is_counted_is_what_was_read() -> None:
    retail, _, flow = history(RETAIL, CARD, FLOW)
    assert (retail.user_id, retail.amount, retail.currency) == ("retail-1", b'"12.60"', b'"GBP"')
    assert (flow.user_id, flow.amount, flow.currency) == ("fts-3", b"5", b"")


def test_exactly_the_purchase_cards_of_the_sample_are_cards() -> None:
    with SAMPLE.open("rb") as file:
        bodies = [json.loads(row.body(0)) for row in read_rows(file, as_history=True)]
    assert len(bodies) == 3000
    for body in bodies:
        is_card = body["user_id"].startswith("calderdale-")
        assert body.get("transaction_type") == ("card" if is_card else None)
        assert not body.keys() & {"product", "status"}
        assert len(json.dumps(body["metadata"]).encode()) <= 4096


@pytest.mark.parametrize(
    "line", ['{"amount":1,"metadata":[]}', '{"metadata":null}', "[]", '{"user_id":{}}']
)
def test_what_has_another_form_is_unreadable(line: str) -> None:
    with pytest.raises(UnreadableError, match=r"^line 2: "):
        history(RETAIL, line)
