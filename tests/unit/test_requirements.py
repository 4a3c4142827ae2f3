"""The locks are those of the list: `make lock` writes them anew."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LISTED = (ROOT / "requirements.txt").read_text("utf-8")
SERVING = LISTED.partition("\n# --- postgresql")[0]
POSTGRES = "\n".join(line for line in LISTED.splitlines() if line.startswith("psycopg"))
REDIS = "\n".join(line for line in LISTED.splitlines() if line.startswith("redis=="))
LOADING = "\n".join(line for line in LISTED.splitlines() if line.startswith("locust=="))

PARTS = [
    "requirements-serve.lock",
    "requirements-postgres.lock",
    "requirements-redis.lock",
    "requirements-load.lock",
]

# A package, its version, where it is for some machines only, and its hashes.
_LOCKED = re.compile(
    r"^([a-z0-9-]+)==(\S+)( ; [^\\]+)? \\\n((?:    --hash=\S+(?: \\)?\n)+)", re.MULTILINE
)
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def listed(text: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def locked(name: str) -> dict[str, tuple[str, str, list[str]]]:
    """Version, condition and hashes of each package."""
    text = (ROOT / name).read_text("utf-8")
    found = {
        match[1]: (match[2], (match[3] or "").removeprefix(" ; ").strip(), _HASH.findall(match[4]))
        for match in _LOCKED.finditer(text)
    }
    assert len(found) == sum("==" in line.partition(";")[0] for line in text.splitlines())
    return found


def brought_along(wanted: list[Requirement]) -> set[str]:
    """The names of all that these need, as they are installed here."""
    names: set[str] = set()
    open_ = [(canonicalize_name(each.name), frozenset(each.extras)) for each in wanted]
    seen = set(open_)
    while open_:
        name, extras = open_.pop()
        names.add(name)
        for text in requires(name) or ():
            need = Requirement(text)
            environments = [{"extra": extra} for extra in ("", *extras)]
            if need.marker is None or any(map(need.marker.evaluate, environments)):
                entry = canonicalize_name(need.name), frozenset(need.extras)
                if entry not in seen:
                    seen.add(entry)
                    open_.append(entry)
    return names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("requirements.lock", LISTED),
        ("requirements-serve.lock", SERVING),
        ("requirements-postgres.lock", POSTGRES),
        ("requirements-redis.lock", REDIS),
        ("requirements-load.lock", LOADING),
    ],
)
def test_a_lock_has_what_its_list_needs_and_nothing_else(name: str, text: str) -> None:
    wanted, packages = listed(text), locked(name)
    for requirement in wanted:
        assert str(requirement.specifier) == f"=={packages[canonicalize_name(requirement.name)][0]}"
    assert all(hashes for _, _, hashes in packages.values())
    here = {
        package
        for package, (_, condition, _) in packages.items()
        if not condition or Requirement(f"x ; {condition}").marker.evaluate()  # type: ignore[union-attr]  # it has one
    }
    assert here == brought_along(wanted)


def test_the_extras_are_those_of_the_list() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["optional-dependencies"] == {
        "postgres": [str(each) for each in listed(POSTGRES)],
        "redis": [str(each) for each in listed(REDIS)],
    }


@pytest.mark.parametrize("name", PARTS)
def test_what_is_in_several_locks_is_the_same_in_each(name: str) -> None:
    everything = locked("requirements.lock")
    for package, (version, _, hashes) in locked(name).items():
        assert (version, hashes) == (everything[package][0], everything[package][2])


@pytest.mark.parametrize("name", ["requirements.lock", *PARTS])
def test_a_lock_names_no_registry(name: str) -> None:
    assert "://" not in (ROOT / name).read_text("utf-8")
