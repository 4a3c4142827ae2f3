"""Words: what a text is found by."""

# Letters that look alike are what this is about.
# ruff: noqa: RUF001

import re
import unicodedata

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.activity import METADATA_FILTERS, Details, Product, Status, TransactionType, terms
from app.core.words import WORD_CHARS_MAX, words

# Neither what is kept nor what is asked for has control characters, which may part words or not.
Texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
Plain = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)
# Where letters meet marks, signs and each other's look-alikes.
Odd = st.text(st.sampled_from("aAáĄıİiIßſﬁﷺ日本カが٣²½Ⅷ_-*%'\"\u0301\u200d\u00ad😀👩 \t\n"), max_size=20)

any_text = settings(deadline=None, max_examples=80)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" \t\r\n", []),
        ("Café Šárka", ["cafe", "sarka"]),
        ("Cafe\u0301", ["cafe"]),
        ("ISPARTA Işık İzmir", ["isparta", "isik", "izmir"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("Łódź Ørsted æon", ["lodz", "orsted", "aeon"]),
        ("a-b_c", ["a", "-", "b", "_", "c"]),
        ('50 % "x" O\'Neil', ["50", "%", '"', "x", '"', "o", "'", "neil"]),
        ("日本 カタ", ["日", "本", "カ", "タ"]),
        ("a日b", ["a", "日", "b"]),
        ("👩‍👧 ok", ["👩", "👧", "ok"]),
        ("ok\U0001fae9 \uf8ff\U000e0fff", ["ok", "\U0001fae9", "\uf8ff", "\U000e0fff"]),
        ("co\u00adop zero\u200bwidth", ["coop", "zerowidth"]),
        ("a\u00a0b\u2028c\u3000d", ["a", "b", "c", "d"]),
        ("ﬁn ½", ["fin", "1", "⁄", "2"]),
        ("x" * 70, ["x" * WORD_CHARS_MAX]),
    ],
)
def test_a_text_has_these_words(text: str, found: list[str]) -> None:
    assert list(words(text)) == found


@given(Texts | Odd)
@any_text
def test_a_word_is_visible_and_whole_and_its_own_only_word(text: str) -> None:
    for word in words(text):
        assert 1 <= len(word) <= WORD_CHARS_MAX
        assert word.isprintable() or unicodedata.category(word) in ("Co", "Cn")
        assert not re.search(r"\s", word)
        assert len(word) == 1 or re.fullmatch(r"[^\W_]+", word)
        assert list(words(word)) == [word]


@given(Plain | Odd)
@any_text
def test_case_and_composition_do_not_matter(text: str) -> None:
    found = list(words(text))
    for same in (
        text.upper(),
        text.casefold(),
        *(unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")),
    ):
        assert list(words(same)) == found


@given(Plain | Odd, Plain | Odd)
@any_text
def test_the_words_of_two_texts_are_those_of_each(one: str, other: str) -> None:
    together = list(words(f"{one} {other}"))
    assert together == [*words(one), *words(other)]
    # Whatever is asked for in words of a text, that text has.
    assert set(words(other)) <= set(together)


Metadata = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | Plain | Odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(Plain, inner, max_size=3),
    max_leaves=6,
)


@given(
    free=st.dictionaries(Plain, Metadata, max_size=3),
    known=st.dictionaries(st.sampled_from(METADATA_FILTERS), Plain | Odd, max_size=3),
    kind=st.none() | st.sampled_from(TransactionType),
    product=st.none() | st.sampled_from(Product),
    status=st.sampled_from(Status),
)
@any_text
def test_terms_have_no_gaps_and_no_word_is_taken_for_a_field(
    free: dict[str, object],
    known: dict[str, str],
    kind: TransactionType | None,
    product: Product | None,
    status: Status,
) -> None:
    said = free | known
    found = terms(Details(kind, product, status, msgspec.json.encode(said)))
    assert len(found) == len(set(found))
    assert all(re.fullmatch(r"\S+", term) for term in found)
    fields = [term for term in found if "=" in term and not term.startswith("x=")]
    stated = sum(name in METADATA_FILTERS and isinstance(value, str) for name, value in said.items())
    assert len(fields) == 1 + (kind is not None) + (product is not None) + stated
