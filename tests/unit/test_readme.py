"""The README's table of settings is the program's."""

import re
from enum import Enum
from pathlib import Path

import msgspec

from app.settings import Settings

README = Path(__file__).parents[2] / "README.md"


def shown(default: object) -> str:
    if isinstance(default, Enum):
        return f"`{default.value}`" if default.value else "unset"
    if not default and isinstance(default, str):
        return "unset"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_the_table_of_settings_has_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.+?) \|", README.read_text("utf-8"), re.MULTILINE)
    assert rows == [
        (field.encode_name, shown(field.default)) for field in msgspec.structs.fields(Settings)
    ]
