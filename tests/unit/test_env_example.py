"""What is said of settings outside of the program is what the program takes."""

import re
from pathlib import Path

import msgspec
import pytest

from app.env_example import env_example
from app.environment import read_settings
from app.settings import Settings

ROOT = Path(__file__).parents[2]
NAMES = [field.encode_name for field in msgspec.structs.fields(Settings)]

# In a container the image says where the service listens and where its data lie, and one process is all
# there is yet.
NOT_OF_COMPOSE = {"HOST", "PORT", "DATABASE_URL", "WORKERS"}


def test_the_example_is_what_would_be_generated() -> None:
    kept = (ROOT / ".env.example").read_text("utf-8")
    assert kept == env_example(), "run `make env-example` after a change of app/settings.py"


def test_the_example_names_every_setting_with_its_default_and_sets_none() -> None:
    lines = env_example().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []
    shown = dict(re.findall(r"^#([A-Z_]+)=(.*)$", env_example(), re.MULTILINE))
    assert list(shown) == NAMES
    assert read_settings(shown) == Settings()


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_explained_right_above_it(name: str) -> None:
    described = rf"\n\n(?:# .+\n)+#{name}="
    assert re.search(described, env_example())


def test_compose_passes_every_setting_on_but_those_of_the_image() -> None:
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    service = re.split(r"\n  millrace:.*\n", compose)[1].partition("\n    volumes:\n")[0]
    passed = re.findall(r"^      ([A-Z_]+):", service, re.MULTILINE)
    assert set(passed) == set(NAMES) - NOT_OF_COMPOSE
    assert len(passed) == len(set(passed))
