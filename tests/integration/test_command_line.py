"""The command line as a shell sees it: words in, an exit status and a line or two out."""

import subprocess
import sys

import pytest


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_help_names_every_verb() -> None:
    told = run("--help")
    assert told.returncode == 0
    assert "  serve " in told.stdout


def test_an_unknown_verb_ends_with_a_line_that_says_so() -> None:
    told = run("sevre")
    assert told.returncode == 2
    assert "No such command 'sevre'" in told.stderr


@pytest.mark.parametrize("words", [(), ("serve",)], ids=["no verb", "serve"])
def test_a_wrong_setting_stops_the_start_with_one_line(words: tuple[str, ...]) -> None:
    told = run(*words, WINDOW_SECONDS="x")
    assert told.returncode == 2
    assert told.stderr.startswith("millrace: WINDOW_SECONDS: ")
    assert told.stderr.count("\n") == 1
