"""Questions to the feed in SQL: which terms of the index, and which positions."""

from collections.abc import Iterator
from typing import Final

import msgspec

from app.core.activity import Details, Product, Status, TransactionType, metadata_term, word_term
from app.core.question import Question
from app.core.transaction import Row, Transaction
from app.store.positions import first_position

# What an index entry is made of; those of the details are `core.activity.terms`.
PLAIN_TERMS_SQL: Final = """
    'c=' || currency || ' a=' || iif(amount_units < 0, 'n', '') || length(abs(amount_units))
         || coalesce(' u=' || hex(user_id), '')
"""
_AMOUNT_DIGITS_MAX: Final = 19

COLUMNS: Final = """
    hex(id), amount_units, currency, timestamp_ms, user_id, transaction_type, product, status, metadata
"""
_Columns = tuple[
    str, int, str, int, str | None, TransactionType | None, Product | None, Status | None, str | None
]
_decode_rows: Final = msgspec.json.Decoder(list[_Columns]).decode

Parameter = int | str | bytes


def read_rows(rows_json: str) -> list[Row]:
    """Rows from a JSON array of arrays of COLUMNS."""
    return [_row(columns) for columns in _decode_rows(rows_json)]


def find(question: Question, before: int | None) -> tuple[str, tuple[Parameter, ...]]:
    """The statement, and its parameters, that selects each `position` of an answer before that one."""
    positions: list[tuple[str, Parameter]] = []
    if question.from_ms is not None:
        positions.append(("position >= ?", first_position(question.from_ms)))
    if question.to_ms is not None:
        positions.append(("position < ?", first_position(question.to_ms + 1)))
    if before is not None:
        positions.append(("position < ?", before))
    amounts: list[tuple[str, Parameter]] = []
    if question.min_units is not None:
        amounts.append(("amount_units >= ?", question.min_units))
    if question.max_units is not None:
        amounts.append(("amount_units <= ?", question.max_units))
    match = " AND ".join(_terms(question))
    matched: list[tuple[str, Parameter]] = [("search MATCH ?", match)] if match else []
    # The full-text table calls it its rowid, and only by that name goes right to it.
    name = "search.rowid" if match else "entry.position"
    tables = "search" if match else "entry"
    if amounts:
        # In this order: each position that is found is looked up, none is looked for.
        tables += " CROSS JOIN entry ON entry.position = search.rowid" if match else ""
        tables += " CROSS JOIN ledger.transactions USING (seq)"
    conditions = [*matched, *((text.replace("position", name), value) for text, value in positions)]
    conditions += amounts
    where = " AND ".join(text for text, _ in conditions)
    return (
        f"SELECT {name} AS position FROM {tables}" + (f" WHERE {where}" if where else ""),
        tuple(value for _, value in conditions),
    )


def _terms(question: Question) -> Iterator[str]:
    """What the full-text table is to match, in its language: strings, so that nothing is syntax."""
    if question.user_id is not None:
        yield f'"u={question.user_id.encode().hex()}"'
    for name, value in question.metadata.items():
        yield f'"{metadata_term(name, value)}"'
    for word in question.words:
        yield f'"{word_term(word)}"'
    if question.transaction_type is not None:
        yield f'"t={question.transaction_type.value}"'
    if question.product is not None:
        yield f'"p={question.product.value}"'
    if question.status is not None:
        yield f'"s={question.status.value}"'
    if question.currency is not None:
        yield f'"c={question.currency}"'
    if question.min_units is not None or question.max_units is not None:
        yield _amount_terms(question.min_units, question.max_units)


def _amount_terms(min_units: int | None, max_units: int | None) -> str:
    """Amounts by sign and number of digits: few are looked at that are not within the bounds."""
    sizes = []
    for digits in range(1, _AMOUNT_DIGITS_MAX + 1):
        least, most = 10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1
        for sign, low, high in (("", least, most), ("n", -most, -least)):
            if (min_units is None or high >= min_units) and (max_units is None or low <= max_units):
                sizes.append(f'"a={sign}{digits}"')
    return f"({' OR '.join(sizes)})" if sizes else '"a="'


def _row(columns: _Columns) -> Row:
    identifier, amount_units, currency, timestamp_ms, user_id, kind, product, status, metadata = columns
    details = None
    if metadata is not None:
        details = Details(kind, product, status or Status.COMPLETED, metadata.encode())
    transaction = Transaction(amount_units, timestamp_ms, currency, user_id, details)
    return Row(int(identifier, 16), transaction)
