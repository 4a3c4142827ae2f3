"""Settings that are refused."""

import pytest

from app.environment import read_settings
from app.settings import SettingsError


def refusal(**environment: str) -> str:
    """The message with which an environment is refused."""
    with pytest.raises(SettingsError) as raised:
        read_settings(environment)
    return str(raised.value)
