"""A part of an answer, cut out of rows that come in any order."""

from hypothesis import given
from hypothesis import strategies as st

from app.core.question import Cut, Page, Place, Portion, place
from app.core.transaction import Row, Transaction

# Few instants, so that many rows share one.
Rows = st.lists(
    st.builds(
        lambda number, timestamp_ms: Row(number, Transaction(1, timestamp_ms, "EUR", None)),
        st.integers(0, 30),
        st.integers(0, 3),
    ),
    unique_by=lambda row: row.id,
)
Portions = st.builds(
    Portion,
    st.integers(1, 5),
    st.none() | st.builds(Place, st.integers(0, 4), st.integers(0, 30)),
    st.integers(0, 8),
    st.booleans(),
)


def cut(rows: list[Row], portion: Portion) -> Page:
    """The same by the whole list, which says what is meant."""
    found = sorted(rows, key=place, reverse=True)
    behind = [row for row in found if portion.before is None or place(row) < portion.before]
    wanted = behind[portion.offset :]
    total = len(found) if portion.with_total else None
    return Page(wanted[: portion.limit], len(wanted) > portion.limit, total)


@given(rows=Rows, portion=Portions)
def test_a_part_is_cut_as_out_of_the_sorted_list(rows: list[Row], portion: Portion) -> None:
    part = Cut(portion)
    for row in rows:
        part.add(row)
    assert part.page() == cut(rows, portion)
