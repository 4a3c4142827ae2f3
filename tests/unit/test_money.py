"""Money against Python's exact arithmetic, and against every spelling that is nearly a number."""

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core.money import (
    UNITS_MAX,
    UNITS_PER_ONE,
    AmountError,
    divide_rounding_half_away,
    format_amount,
    parse_amount,
)

QUIRKS = Path(__file__).parents[2] / "../shared/data/quirks.ndjson"
FRACTION_DIGITS_MAX = 8

twin = settings(derandomize=False, print_blob=True, deadline=None, max_examples=400)


def quoted(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()


def outcome(literal: bytes) -> int | None:
    """The units, or None where the literal is refused; any other exception is the test's failure."""
    try:
        return parse_amount(literal)
    except AmountError:
        return None


def is_json_number(text: str) -> bool:
    """Whether Python's JSON reader takes the text, all of it, for a number."""
    try:
        # No integer is called NaN or Infinity, which JSON does not have and Python reads.
        value = json.loads(text, parse_int=Decimal, parse_float=Decimal, parse_constant=int)
    except ValueError:
        return False
    return isinstance(value, Decimal) and text.strip() == text


def oracle(text: str) -> int | None:
    """What the contract says of a spelling, in Python's own arithmetic."""
    if not is_json_number(text):
        return None
    significand = text.lower().partition("e")[0]
    units = Fraction(Decimal(text)) * UNITS_PER_ONE
    as_written = len(significand.partition(".")[2])
    if as_written > FRACTION_DIGITS_MAX or units.denominator != 1 or abs(units) > UNITS_MAX:
        return None
    return int(units)


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """JSON numbers as people and programs write them, near the limits more often than far away."""
    digits = st.text("0123456789", min_size=1, max_size=24)
    near_max = st.integers(UNITS_MAX - 2, UNITS_MAX + 2).map(str)
    round_number = st.builds(lambda head, zeros: head + "0" * zeros, digits, st.integers(0, 20))
    whole = draw(digits | near_max | round_number | st.just("0")).lstrip("0") or "0"
    fraction = draw(st.just("") | st.text("0123456789", min_size=1, max_size=10))
    exponent = ""
    if draw(st.booleans()):
        zeros = "0" * draw(st.integers(0, 3))
        power = draw(st.integers(0, 12) | st.integers(0, 60))
        exponent = f"{draw(st.sampled_from('eE'))}{draw(st.sampled_from(['', '+', '-']))}{zeros}{power}"
    return f"{draw(st.sampled_from(['', '-']))}{whole}{'.' if fraction else ''}{fraction}{exponent}"


def test_a_tenth_is_exactly_a_tenth() -> None:
    assert parse_amount(b"0.1") * 10 == parse_amount(b"1") == UNITS_PER_ONE


@pytest.mark.parametrize(
    ("text", "units"),
    [
        *(("0", 0), ("-0", 0), ("-0.00000000", 0), ("0e999999", 0), ("0E-999999", 0), ("0.00e+99", 0)),
        *(("12.3343", 1_233_430_000), ("-12.30", -1_230_000_000), ("0.12345678", 12_345_678)),
        *(("0.00000001", 1), ("1e-8", 1), ("10e-9", 1), ("1.50000000e+1", 1_500_000_000)),
        *(("1.5E3", 150_000_000_000), ("9.2e10", 92 * 10**17), ("1" + "0" * 20 + "e-20", 10**8)),
        *(("92233720368.54775807", UNITS_MAX), ("-92233720368.54775807", -UNITS_MAX)),
        ("9223372036854775807e-8", UNITS_MAX),
    ],
)
def test_a_number_and_a_string_spelled_like_it_are_the_same_exact_units(text: str, units: int) -> None:
    assert parse_amount(text.encode()) == parse_amount(quoted(text)) == units


@pytest.mark.parametrize(
    "text",
    [
        *("92233720368.54775808", "-92233720368.54775808", "9223372036854775808e-8", "92233720369"),
        *("92233720368547758070000000000", "1e11", "1e999999", "-1E+999999", "1e99999999999999999999"),
    ],
)
def test_a_magnitude_above_64_bits_of_units_is_refused(text: str) -> None:
    assert outcome(text.encode()) is outcome(quoted(text)) is None


@pytest.mark.parametrize(
    "text",
    [
        *("0.000000001", "1.000000000", "0.000000000", "1.123456789e1", "1e-9", "1.5e-8"),
        *("123456789e-9", "1e-999999", "1e-99999999999999999999"),
    ],
)
def test_more_than_eight_fraction_digits_are_refused_even_where_they_are_zeros(text: str) -> None:
    assert outcome(text.encode()) is outcome(quoted(text)) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-", "+", ".", "e5", "-.", "--1", "abc", "null", "true", "[]", "{}", '"1"', '"'),
        *("NaN", "nan", "sNaN", "-NaN", "NaN123", "Infinity", "-Infinity", "inf", "1e", "1e+", "1e1.5"),
        *("+5", ".5", "5.", "-.5", "1_000", "1,000", "1,5", "01", "-01", "00", "0x10", "1e1_0", "(5)"),
        *(" 12 ", " 12", "12 ", "12\n", "\n12", "12\r\n", "12\t", "1 2", "12\x00", "12\u00a0"),
        "\ufeff12",
        *("\u0661\u0662", "\uff11\uff12", "1\u0663", "\u00b2", "\u22125", "1.5\u0665", "$5", "5 EUR"),
    ],
)
def test_a_string_not_spelled_like_a_json_number_is_refused(text: str) -> None:
    assert outcome(quoted(text)) is None


@pytest.mark.parametrize(
    "literal",
    [b"", b" 1", b"1 ", b"1\n", b"null", b"true", b"false", b"[]", b"[1]", b"{}", b"NaN", b"-", b"+5"],
)
def test_a_literal_that_is_neither_number_nor_string_is_refused(literal: bytes) -> None:
    assert outcome(literal) is None


@pytest.mark.parametrize(
    ("literal", "units"),
    [
        (rb'"\u0031"', 100_000_000),
        (rb'"1\u002e5"', 150_000_000),
        (rb'"\u002D1\u0065\u0032"', -10_000_000_000),
    ],
)
def test_an_escape_in_a_string_counts_as_what_it_spells(literal: bytes, units: int) -> None:
    assert parse_amount(literal) == units


@pytest.mark.parametrize(
    "literal",
    [rb'"1\n"', rb'"1\u0000"', rb'"\u0661"', rb'"\"1"', rb'"\u00201"', rb'"\/1"', rb'"\\1"'],
)
def test_an_escape_cannot_smuggle_in_what_is_refused(literal: bytes) -> None:
    assert outcome(literal) is None


@pytest.mark.parametrize("literal", [rb'"\ud800"', rb'"\x31"', b'"\\u0031\xff"'])
def test_a_broken_string_is_refused_as_an_amount_and_not_otherwise(literal: bytes) -> None:
    with pytest.raises(AmountError):
        parse_amount(literal)


@pytest.mark.parametrize("text", ["1e0000000001", "1e+0000000", "1e-00000000", "10e-000000001"])
def test_leading_zeros_of_an_exponent_do_not_change_the_number(text: str) -> None:
    assert parse_amount(text.encode()) == oracle(text)


@pytest.mark.parametrize(
    "literal",
    [
        pytest.param(b"9" * 100_000, id="nines"),
        pytest.param(b"1" + b"0" * 100_000, id="a one and zeros"),
        pytest.param(b"0." + b"0" * 100_000, id="zeros after the point"),
        pytest.param(b"0." + b"0" * 100_000 + b"1", id="a one far after the point"),
        pytest.param(b"1e" + b"9" * 100_000, id="an exponent of nines"),
        pytest.param(b"1e-" + b"9" * 100_000, id="a negative exponent of nines"),
        pytest.param(b"9" * 100_000 + b"e-99992", id="nines brought into range by an exponent"),
    ],
)
def test_a_hundred_thousand_digits_are_refused(literal: bytes) -> None:
    assert outcome(literal) is None


@pytest.mark.parametrize(
    ("literal", "units"),
    [
        pytest.param(b"15" + b"0" * 60_000 + b"e-60001", 150_000_000, id="60000 digits"),
        pytest.param(b"15" + b"0" * 100_000 + b"e-100001", 150_000_000, id="100000 digits"),
        pytest.param(b"15" + b"0" * 2_000_000 + b"e-2000001", 150_000_000, id="2000000 digits"),
        pytest.param(b"1" + b"0" * 100_000 + b"e-200000", None, id="far too small"),
    ],
)
def test_an_exponent_counts_in_full_however_many_digits_stand_against_it(
    literal: bytes, units: int | None
) -> None:
    # A batch may be of 8 MiB, and one number may fill it.
    assert outcome(literal) == units


@twin
@given(spellings())
def test_a_number_is_accepted_exactly_where_python_says_it_is_exact_and_in_range(text: str) -> None:
    assert outcome(text.encode()) == outcome(quoted(text)) == oracle(text)


@twin
@given(st.text("0123456789+-.eE_ \n\u0661", max_size=12))
def test_of_any_jumble_of_digits_and_signs_only_json_numbers_are_accepted(text: str) -> None:
    assert outcome(quoted(text)) == oracle(text)


@twin
@given(st.integers(-UNITS_MAX, UNITS_MAX))
@example(UNITS_MAX)
@example(-UNITS_MAX)
def test_every_amount_survives_being_written_and_read(units: int) -> None:
    assert parse_amount(format_amount(units).encode()) == units


@twin
@given(
    st.integers(-UNITS_MAX, UNITS_MAX) | st.integers(-1000, 1000).map(lambda n: n * UNITS_PER_ONE // 8)
)
def test_two_to_eight_fraction_digits_are_written_and_beyond_the_second_no_closing_zero(
    units: int,
) -> None:
    fraction = format_amount(units).partition(".")[2]
    assert 2 <= len(fraction) <= FRACTION_DIGITS_MAX
    assert len(fraction) == 2 or fraction[-1] != "0"


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (0, "0.00"),
        (1, "0.00000001"),
        (-1, "-0.00000001"),
        (10_000_000, "0.10"),
        (12_300_000, "0.123"),
        (-150_000_000, "-1.50"),
        (100_000_000_000, "1000.00"),
        (UNITS_MAX, "92233720368.54775807"),
        (1000 * UNITS_MAX, "92233720368547.75807"),
    ],
)
def test_an_amount_is_written_plainly(units: int, text: str) -> None:
    assert format_amount(units) == text


@twin
@given(
    st.integers(-(10**24), 10**24) | st.integers(-50, 50), st.integers(1, 10**10) | st.integers(1, 20)
)
def test_division_is_nowhere_more_than_a_half_off_and_a_tie_goes_away_from_zero(
    dividend: int, divisor: int
) -> None:
    exact = Fraction(dividend, divisor)
    quotient = divide_rounding_half_away(dividend, divisor)
    assert abs(quotient - exact) <= Fraction(1, 2)
    assert abs(quotient - exact) < Fraction(1, 2) or abs(quotient) > abs(exact)


@pytest.mark.parametrize(
    ("dividend", "divisor", "quotient"),
    [
        (1, 2, 1),
        (-1, 2, -1),
        (3, 2, 2),
        (-3, 2, -2),
        (5, 2, 3),
        (1, 3, 0),
        (-1, 3, 0),
        (2, 3, 1),
        (0, 7, 0),
    ],
)
def test_halves_go_away_from_zero(dividend: int, divisor: int, quotient: int) -> None:
    assert divide_rounding_half_away(dividend, divisor) == quotient


def test_real_amounts_are_read_as_python_reads_them_or_refused() -> None:
    if not QUIRKS.exists():
        pytest.skip(f"{QUIRKS} is not on this machine")
    records = [json.loads(line) for line in QUIRKS.read_text(encoding="utf-8").splitlines()]
    texts = [record["raw"] for record in records if record["kind"] == "amount"]
    assert texts
    for text in texts:
        assert outcome(quoted(text)) == oracle(text), text
