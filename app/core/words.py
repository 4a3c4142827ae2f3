"""Words: what a text is found by, and what a search asks for. The one place that says what matches.

A word is a run of letters and digits, without case and accents; every other visible character stands
for itself. Engines keep words and compare them; none of them ever parses what a user has typed.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

# A longer one is cut, as the engines' own limits would otherwise come into it.
WORD_CHARS_MAX: Final = 64

# Ideographs and kana are written without spaces, so each is a word of its own.
_IDEOGRAPHS: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD: Final = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+|[^\w\s]|_")

# Letters that Unicode does not decompose, though readers take the one for the other.
_ALIKE: Final = str.maketrans(
    {"\u0131": "i", "ł": "l", "ø": "o", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe"}
)
# Marks above and below a letter, and what joins or varies signs without being seen. What this Unicode
# does not know, or leaves to others, may well be seen: an emoji of next year, or a maker's own sign.
_UNSEEN: Final = frozenset(("Mn", "Me", "Cf", "Cc", "Cs"))


def words(text: str) -> Iterator[str]:
    """The words of a text, in their order."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text.casefold())
        # Once more: what is decomposed may have capitals again.
        folded = decomposed.casefold().translate(_ALIKE)
        # A letter may become many, so each is looked at once, however often it comes.
        text = folded.translate({ord(char): _seen(char) for char in set(folded) if not char.isalnum()})
    else:
        text = text.lower()
    for match in _WORD.finditer(text):
        word = match[0]
        if word > "\x1f" and word != "\x7f":
            yield word[:WORD_CHARS_MAX]


def _seen(char: str) -> str:
    """What is left of a character that is neither letter nor digit."""
    if char in "\t\n\r":
        return " "
    return "" if unicodedata.category(char) in _UNSEEN else char
