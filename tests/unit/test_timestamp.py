"""Instants against Python's calendar and its fractions."""

import json
import re
from datetime import datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core.timestamp import (
    TIMESTAMP_MS_MAX,
    TIMESTAMP_MS_MIN,
    TimestampError,
    format_timestamp,
    parse_timestamp,
)

SECONDS_MAX = 20_000_000_000
NEW_YEAR_2026_MS = 1_767_225_600_000
MINUTE_MS = 60_000

twin = settings(derandomize=False, print_blob=True, deadline=None, max_examples=400)


def quoted(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()


def outcome(literal: bytes) -> int | None:
    """The milliseconds, or None where the literal is refused; anything else is the test's failure."""
    try:
        return parse_timestamp(literal)
    except TimestampError:
        return None


def in_range(timestamp_ms: int) -> int | None:
    """What the contract says of an instant: years 1 to 9999, nothing else."""
    year_1, year_10000 = -62_135_596_800_000, 253_402_300_800_000
    return timestamp_ms if year_1 <= timestamp_ms < year_10000 else None


@pytest.mark.parametrize(
    ("literal", "timestamp_ms"),
    [
        *((b"0", 0), (b"-0", 0), (b"0.000", 0), (b"-1", -1000)),
        *((b"1767225600", NEW_YEAR_2026_MS), (b"1767225600000", NEW_YEAR_2026_MS)),
        *(
            (b"20000000000", 2 * 10**13),
            (b"-20000000000", -2 * 10**13),
            (b"20000000000.000", 2 * 10**13),
        ),
        *((b"2e10", 2 * 10**13), (b"-2E+10", -2 * 10**13), (b"19999999999.9999", 19_999_999_999_999)),
        *((b"20000000001", 20_000_000_001), (b"-20000000001", -20_000_000_001)),
        *((b"20000000000.1", 20_000_000_000), (b"2.00000000001e10", 20_000_000_000)),
        *((b"253402300799999", TIMESTAMP_MS_MAX), (b"-62135596800000", TIMESTAMP_MS_MIN)),
    ],
)
def test_a_magnitude_up_to_2e10_is_seconds_and_above_it_milliseconds(
    literal: bytes, timestamp_ms: int
) -> None:
    assert parse_timestamp(literal) == timestamp_ms


@pytest.mark.parametrize(
    ("literal", "timestamp_ms"),
    [
        *((b"1.001", 1001), (b"-1.001", -1001), (b"1.1", 1100), (b"4.035", 4035), (b"1e-3", 1)),
        *((b"1001e-3", 1001), (b"1767225600.678", NEW_YEAR_2026_MS + 678)),
        (b"1.767225600678e9", NEW_YEAR_2026_MS + 678),
        (b"1.767225600678E+12", NEW_YEAR_2026_MS + 678),
        (b"1767225600678000e-3", NEW_YEAR_2026_MS + 678),
    ],
)
def test_a_fraction_of_a_second_is_exact(literal: bytes, timestamp_ms: int) -> None:
    assert parse_timestamp(literal) == timestamp_ms


@pytest.mark.parametrize(
    ("literal", "timestamp_ms"),
    [
        *((b"1.0019999", 1001), (b"-1.0019999", -1001), (b"0.0009", 0), (b"1e-4", 0), (b"1e-999", 0)),
        (b"1767225600000.999", NEW_YEAR_2026_MS),
        (b'"1970-01-01T00:00:00.0019999Z"', 1),
        (b'"1969-12-31T23:59:59.9989999Z"', -2),
        (b'"2026-01-01T00:00:00.67899999999999999999999Z"', NEW_YEAR_2026_MS + 678),
    ],
)
def test_digits_below_a_millisecond_are_cut(literal: bytes, timestamp_ms: int) -> None:
    assert parse_timestamp(literal) == timestamp_ms


@pytest.mark.parametrize(
    ("text", "timestamp_ms"),
    [
        ("2026-01-01T00:00:00Z", NEW_YEAR_2026_MS),
        ("2026-01-01t00:00:00z", NEW_YEAR_2026_MS),
        ("2026-01-01 00:00:00Z", NEW_YEAR_2026_MS),
        ("2026-01-01T00:00:00+00:00", NEW_YEAR_2026_MS),
        ("2026-01-01T00:00:00-00:00", NEW_YEAR_2026_MS),
        ("2026-01-01T05:30:00+05:30", NEW_YEAR_2026_MS),
        ("2025-12-31T19:00:00-05:00", NEW_YEAR_2026_MS),
        ("2026-01-01T05:30:00+0530", NEW_YEAR_2026_MS),
        ("2026-01-01T01:00:00+01", NEW_YEAR_2026_MS),
        ("2026-01-01T23:59:00+23:59", NEW_YEAR_2026_MS),
        ("2026-01-01T00:00Z", NEW_YEAR_2026_MS),
        ("20260101T000000Z", NEW_YEAR_2026_MS),
        ("2026-01-01T00:00:00.5Z", NEW_YEAR_2026_MS + 500),
        ("2026-01-01T00:00:00,5Z", NEW_YEAR_2026_MS + 500),
        ("2026-01-01T00:00:00.05Z", NEW_YEAR_2026_MS + 50),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ("0001-01-01T00:00:00Z", TIMESTAMP_MS_MIN),
        ("9999-12-31T23:59:59.999Z", TIMESTAMP_MS_MAX),
    ],
)
def test_rfc_3339_and_iso_8601_are_read(text: str, timestamp_ms: int) -> None:
    assert parse_timestamp(quoted(text)) == timestamp_ms


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00", "2026-01-01 00:00", "2026-01-01T00:00:00.000"])
def test_a_string_without_offset_is_utc(text: str) -> None:
    assert parse_timestamp(quoted(text)) == parse_timestamp(quoted(f"{text}Z"))


def test_a_date_alone_is_its_midnight() -> None:
    assert parse_timestamp(b'"2026-01-01"') == NEW_YEAR_2026_MS


def test_an_escape_counts_as_what_it_spells() -> None:
    assert parse_timestamp(rb'"2026\u002d01-01T00:00:00\u005a"') == NEW_YEAR_2026_MS


@pytest.mark.parametrize(
    "text",
    [
        *("0", "1", "1767225600", "1767225600000", "-1767225600", "1767225600.5", "1e9", "20260101"),
        *(
            "2026-01-01T00:00:60Z",
            "2016-12-31T23:59:60Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T24:00:00Z",
        ),
        *("2026-01-01T25:00:00Z", "0000-01-01", "0000-12-31T23:59:59Z", "-001-01-01", "+2026-01-01"),
        *("2026-02-30", "2026-02-29", "2026-04-31T00:00:00Z", "2026-13-01", "2026-00-01", "2026-01-00"),
        *("2026-01-01\n", "2026-01-01T00:00:00Z\n", "\n2026-01-01", " 2026-01-01", "2026-01-01 "),
        *("2026-01-01T00:00:00Z\x00", "2026-01-01T00:00:00ZZ", "2026-01-01T00:00:00 Z", "2026-01-01T"),
        *("", " ", "-", "now", "today", "null", "NaN", "T00:00:00Z", "00:00:00", "2026-1-1", "26-01-01"),
        *("2026/01/01", "01.01.2026", "2026-01-01X00:00:00Z", "2026-01-01T0:00:00Z", "2026-01"),
        *(
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.5.5Z",
            "2026-01-01T00:00:00.5e1Z",
            "12026-01-01",
        ),
        *("2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+5:00", "2026-01-01T00:00:00+"),
        *("\u0662\u0660\u0662\u0666-01-01", "2026-01-01T00:00:00\uff3a", "2026\u201301\u201301"),
        *("0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "10000-01-01T00:00:00Z"),
    ],
)
def test_a_string_that_is_no_instant_is_refused(text: str) -> None:
    assert outcome(quoted(text)) is None


@pytest.mark.parametrize("offset", ["+00:60", "+00:99", "-05:75", "+0099"])
def test_an_offset_of_sixty_minutes_or_more_past_the_hour_is_refused(offset: str) -> None:
    assert outcome(quoted(f"2026-01-01T00:00:00{offset}")) is None


@pytest.mark.parametrize(
    "literal",
    [
        *(b"null", b"true", b"false", b"{}", b"[]", b"[0]", b"", b"NaN", b"Infinity", b"-Infinity"),
        *(b"-", b"+1", b".5", b"5.", b"01", b"1_000", b"1e", b" 1", b"1 ", b"1\n", b"0x10", b"\xd9\xa1"),
    ],
)
def test_a_literal_that_is_neither_number_nor_string_is_refused(literal: bytes) -> None:
    assert outcome(literal) is None


@pytest.mark.parametrize("literal", [rb'"\ud800"', rb'"\x32"', b'"\xff"'])
def test_a_broken_string_is_refused_as_a_timestamp_and_not_otherwise(literal: bytes) -> None:
    with pytest.raises(TimestampError):
        parse_timestamp(literal)


@pytest.mark.parametrize(
    "literal",
    [
        b"253402300800000",
        b"-62135596800001",
        b"1e15",
        b"-1e15",
        b"1e999",
        b"9" * 5000,
        b"1e" + b"9" * 50,
    ],
    ids=lambda literal: f"{literal[:20].decode()} in {len(literal)} bytes",
)
def test_a_number_outside_the_years_1_to_9999_is_refused(literal: bytes) -> None:
    assert outcome(literal) is None


@pytest.mark.parametrize(
    ("literal", "timestamp_ms"),
    [
        pytest.param(b"1." + b"0" * 100, 1000, id="a hundred fraction digits"),
        pytest.param(b"1.0019" + b"9" * 1000, 1001, id="a thousand fraction digits"),
        pytest.param(b"1e0001", 10_000, id="an exponent of four digits"),
        pytest.param(b"0e9999", 0, id="zero with any exponent"),
        pytest.param(b"1e-9999", 0, id="nothing left above a millisecond"),
        pytest.param(b"15" + b"0" * 100_000 + b"e-100001", 1500, id="an exponent of 100001"),
    ],
)
def test_a_number_may_be_spelled_at_any_length(literal: bytes, timestamp_ms: int) -> None:
    assert parse_timestamp(literal) == timestamp_ms


@st.composite
def numbers(draw: st.DrawFn) -> str:
    """JSON numbers, near the threshold and the ends of time more often than far away."""
    edges = (SECONDS_MAX, -TIMESTAMP_MS_MIN, TIMESTAMP_MS_MAX)
    near_edge = st.sampled_from(edges).flatmap(lambda edge: st.integers(edge - 2, edge + 2))
    whole = str(draw(near_edge | st.integers(0, 3 * 10**14) | st.integers(0, 10**11) | st.integers(0)))
    fraction = draw(st.just("") | st.text("0123456789", min_size=1, max_size=40))
    point = len(whole)
    exponent = ""
    if draw(st.booleans()):
        # The same digits with the point moved and an exponent that moves it back, or nearly.
        point = draw(st.integers(1, len(whole)))
        moved = len(whole) - point + draw(st.sampled_from([0, 0, 0, 3, -3, 12, -30]))
        sign = "+" if moved > 0 and draw(st.booleans()) else ""
        exponent = f"{draw(st.sampled_from('eE'))}{sign}{moved}"
    digits = whole[point:] + fraction
    return f"{draw(st.sampled_from(['', '-']))}{whole[:point]}{'.' if digits else ''}{digits}{exponent}"


@twin
@given(numbers())
@example("20000000000.0000000000000000000000000001")
def test_a_number_is_read_as_an_exact_fraction_would_be(text: str) -> None:
    exact = Fraction(text)
    assert outcome(text.encode()) == in_range(int(exact * 1000 if abs(exact) <= SECONDS_MAX else exact))


@twin
@given(
    st.datetimes(),
    st.sampled_from(["%Y-%m-%d{}%H:%M:%S", "%Y%m%d{}%H%M%S"]),
    st.sampled_from("Tt "),
    st.just("") | st.text("0123456789", min_size=1, max_size=12),
    st.sampled_from(["", "Z", "z"]) | st.integers(-24 * 60 + 1, 24 * 60 - 1),
)
def test_a_string_is_read_as_the_calendar_says(
    clock: datetime, form: str, separator: str, fraction: str, zone: str | int
) -> None:
    clock = clock.replace(microsecond=0)
    offset_minutes = 0 if isinstance(zone, str) else zone
    if not isinstance(zone, str):
        zone = f"{'-' if zone < 0 else '+'}{abs(zone) // 60:02d}:{abs(zone) % 60:02d}"
    # strftime writes years below 1000 without their leading zeros.
    text = clock.strftime(form.replace("%Y", f"{clock.year:04d}")).format(separator)
    text += f"{'.' if fraction else ''}{fraction}{zone}"
    since_epoch_ms = (clock - datetime(1970, 1, 1)) // timedelta(milliseconds=1)
    expected_ms = since_epoch_ms + int(f"{fraction}000"[:3]) - offset_minutes * MINUTE_MS
    assert outcome(quoted(text)) == in_range(expected_ms)


@twin
@given(st.integers(TIMESTAMP_MS_MIN, TIMESTAMP_MS_MAX))
@example(TIMESTAMP_MS_MIN)
@example(TIMESTAMP_MS_MAX)
@example(-1)
def test_every_instant_survives_being_written_and_read(timestamp_ms: int) -> None:
    assert parse_timestamp(quoted(format_timestamp(timestamp_ms))) == timestamp_ms


@twin
@given(st.integers(TIMESTAMP_MS_MIN, TIMESTAMP_MS_MAX))
def test_an_instant_is_always_written_with_four_digits_of_year_three_of_fraction_and_z(
    timestamp_ms: int,
) -> None:
    shape = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z"
    assert re.fullmatch(shape, format_timestamp(timestamp_ms), re.ASCII)


@pytest.mark.parametrize(
    ("timestamp_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_767_323_045_678, "2026-01-02T03:04:05.678Z"),
        (TIMESTAMP_MS_MIN, "0001-01-01T00:00:00.000Z"),
        (-30_610_224_000_001, "0999-12-31T23:59:59.999Z"),
        (TIMESTAMP_MS_MAX, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_an_instant_is_written_as_the_contract_shows_it(timestamp_ms: int, text: str) -> None:
    assert format_timestamp(timestamp_ms) == text
