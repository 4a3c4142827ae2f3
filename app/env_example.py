"""`python -m app.env_example`: the text of `.env.example`: each setting, its meaning and its default."""

import sys
import textwrap
from enum import Enum
from typing import Final, get_args, get_type_hints

import msgspec

from app.settings import Settings

_LINE_CHARS: Final = 105

_HEAD: Final = """\
# Settings of Millrace, each commented out with its default. To change some: copy this file to .env and
# take the sign off. `docker compose up` reads .env (HOST, PORT, DATABASE_URL and WORKERS are the image's
# own there); for a service without Docker, a shell does: set -a; . ./.env; set +a
"""


def env_example() -> str:
    """The file's text. Nothing in it is set: to copy it changes nothing."""
    hints = get_type_hints(Settings, include_extras=True)
    parts = [_HEAD]
    for field in msgspec.structs.fields(Settings):
        comment = textwrap.fill(
            _meaning(hints[field.name]), _LINE_CHARS, initial_indent="# ", subsequent_indent="# "
        )
        parts.append(f"{comment}\n#{field.encode_name}={_value(field.default)}\n")
    return "\n".join(parts)


def _meaning(hint: object) -> str:
    """The description, and what is accepted where that is a fixed set or a range."""
    kind, meta = get_args(hint)
    text: str = meta.description
    if issubclass(kind, Enum):
        return f"{text} One of: {', '.join(choice.value for choice in kind if choice.value)}."
    if meta.ge is not None and meta.ge != meta.le:
        return f"{text} From {meta.ge} to {meta.le}."
    return text


def _value(default: object) -> str:
    if isinstance(default, Enum):
        default = default.value
    return str(default).lower() if isinstance(default, bool) else str(default)


if __name__ == "__main__":
    sys.stdout.write(env_example())
