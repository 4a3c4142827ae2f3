"""The feed's SQL: what a question becomes, and how a row is read back."""

from collections.abc import Sequence
from itertools import starmap
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from app.core.activity import Details, Product, Status, TransactionType, metadata_term, word_term
from app.core.question import Portion, Question
from app.core.transaction import Row, Transaction

_COLUMNS: Final = """id, timestamp_ms, amount_units, currency, user_id,
    transaction_type, product, status, coalesce(metadata_text, metadata::text)"""

GET: Final = f"SELECT {_COLUMNS} FROM transactions WHERE id = %s"

Parameter = int | str | bytes | UUID
Columns = tuple[UUID, int, int, str, str | None, str | None, str | None, str | None, str | None]


class Statement(NamedTuple):
    """SQL with its parameters."""

    text: str
    parameters: Sequence[Parameter]


def page_statement(question: Question, portion: Portion) -> Statement:
    """The rows of a portion, and one more where there are more."""
    conditions = _conditions(question)
    if portion.before is not None:
        timestamp_ms, identifier = portion.before
        conditions.append(("(timestamp_ms, id) < (%s, %s)", (timestamp_ms, UUID(int=identifier))))
    text = (
        f"SELECT {_COLUMNS} FROM transactions {_where(conditions)} "
        "ORDER BY timestamp_ms DESC, id DESC LIMIT %s OFFSET %s"
    )
    return Statement(text, [*_parameters(conditions), portion.limit + 1, portion.offset])


def total_statement(question: Question) -> Statement:
    """How many rows a question finds."""
    conditions = _conditions(question)
    text = f"SELECT count(*) FROM transactions {_where(conditions)}"
    return Statement(text, _parameters(conditions))


def read_row(columns: Columns) -> Row:
    """A row from its columns."""
    identifier, timestamp_ms, amount_units, currency, user_id, kind, product, status, metadata = columns
    details = None
    if metadata is not None:
        details = Details(
            None if kind is None else TransactionType(kind),
            None if product is None else Product(product),
            Status.COMPLETED if status is None else Status(status),
            # jsonb has an order and spaces of its own.
            msgspec.json.encode(msgspec.json.decode(metadata), order="sorted"),
        )
    return Row(identifier.int, Transaction(amount_units, timestamp_ms, currency, user_id, details))


_Condition = tuple[str, Sequence[Parameter]]


def _conditions(question: Question) -> list[_Condition]:
    given: list[tuple[str, Parameter | None]] = [
        ("user_id = %s", question.user_id),
        ("currency = %s", question.currency),
        ("timestamp_ms >= %s", question.from_ms),
        ("timestamp_ms <= %s", question.to_ms),
        ("amount_units >= %s", question.min_units),
        ("amount_units <= %s", question.max_units),
        ("transaction_type = %s", question.transaction_type and question.transaction_type.value),
        ("product = %s", question.product and question.product.value),
    ]
    conditions: list[_Condition] = [(text, (value,)) for text, value in given if value is not None]
    if question.status is Status.COMPLETED:
        conditions.append(("status IS NULL", ()))
    elif question.status is not None:
        conditions.append(("status = %s", (question.status.value,)))
    terms = [*starmap(metadata_term, question.metadata.items()), *map(word_term, question.words)]
    if terms:
        conditions.append(("terms @@ %s::tsquery", (" & ".join(map(_quoted, terms)),)))
    return conditions


def _where(conditions: Sequence[_Condition]) -> str:
    return "WHERE " + " AND ".join(text for text, _ in conditions) if conditions else ""


def _parameters(conditions: Sequence[_Condition]) -> list[Parameter]:
    return [value for _, values in conditions for value in values]


def _quoted(term: str) -> str:
    """A term as it stands in a query, in which nothing of it has a meaning."""
    return "'" + term.replace("\\", "\\\\").replace("'", "''") + "'"
