"""The command line as a shell sees it: words in, an exit status and a line or two out."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.__main__ import main
from tests.support.process import ServiceProcess


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
    assert "  token " in told.stdout


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


def test_an_interrupted_verb_ends_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.commands.backup.copy_database", interrupted)
    monkeypatch.setattr("sys.argv", ["app", "backup", str(tmp_path / "copy.db")])
    assert main() == 130
    told = capsys.readouterr()
    assert (told.out, told.err.strip()) == ("", "")


JWT = {
    "AUTH": "jwt",
    "JWT_SECRET": "correct horse battery staple, and then some",
    "JWT_ISSUER": "https://id.example",
    "JWT_AUDIENCE": "millrace",
}


def test_a_token_that_was_made_on_the_command_line_is_let_in() -> None:
    with ServiceProcess(JWT) as service, service.client() as client:
        for scope, status in (("stats:read", 200), ("transactions:write", 403)):
            made = run("token", "--sub", "alice", "--scope", scope, **JWT)
            assert (made.returncode, made.stderr) == (0, "")
            headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
            assert client.get("/stats", headers=headers).status_code == status
        assert client.get("/stats").status_code == 401
        assert service.events[0]["auth"] == "jwt (secret)"
        assert JWT["JWT_SECRET"] not in str(service.events)


def test_a_token_lasts_as_long_as_was_asked() -> None:
    made = run("token", "--sub", "alice", "--expires-seconds", "7", **JWT)
    claims = json.loads(base64.urlsafe_b64decode(made.stdout.split(".")[1] + "=="))
    assert claims["exp"] - claims["iat"] == 7
    assert claims["scope"] == "transactions:write stats:read"


@pytest.mark.parametrize(
    ("words", "environment", "complaint"),
    [
        (("--sub", "alice"), {}, "millrace: AUTH: a token can be made where it is jwt"),
        (("--sub", "alice"), {**JWT, "JWT_SECRET": "short"}, "millrace: JWT_SECRET: "),
        (
            ("--sub", "alice"),
            {**JWT, "JWT_SECRET": "", "JWT_JWKS_URL": "https://id.example/keys"},
            "millrace: AUTH: a token can be made where it is jwt",
        ),
        (("--sub", ""), JWT, "Error: Invalid value"),
        (("--sub", "a\nb"), JWT, "Error: Invalid value"),
        (("--sub", "alice", "--scope", "stats:raed"), JWT, "'stats:raed' is not one of: "),
        (("--sub", "alice", "--expires-seconds", "0"), JWT, "Error: Invalid value"),
        ((), JWT, "Missing option '--sub'"),
    ],
)
def test_a_token_that_cannot_be_made_is_refused(
    words: tuple[str, ...], environment: dict[str, str], complaint: str
) -> None:
    told = run("token", *words, **environment)
    assert (told.returncode, told.stdout) == (2, "")
    assert complaint in told.stderr
    assert "correct horse" not in told.stderr
