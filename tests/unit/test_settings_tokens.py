"""Settings of tokens: who must say how callers are known, and what does not fit together."""

import pytest

from app.environment import read_settings
from app.settings import Authentication
from tests.support.settings import refusal

SECRET = "correct horse battery staple, and then some"
BY_SECRET = {"AUTH": "jwt", "JWT_SECRET": SECRET, "JWT_ISSUER": "i", "JWT_AUDIENCE": "a"}
URL = "https://id.example/keys"
BY_KEY_SET = {"AUTH": "jwt", "JWT_JWKS_URL": URL, "JWT_ISSUER": "i", "JWT_AUDIENCE": "a"}


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "example.org"])
@pytest.mark.parametrize(
    ("environment", "words"), [(BY_SECRET, "jwt (secret)"), (BY_KEY_SET, "jwt (key set)")]
)
def test_tokens_are_fine_on_any_address(environment: dict[str, str], words: str, host: str) -> None:
    settings = read_settings({**environment, "HOST": host})
    assert settings.auth is Authentication.JWT
    assert settings.authentication == words


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"JWT_SECRET": ""}, "AUTH"),
        ({"JWT_JWKS_URL": URL}, "AUTH"),
        ({"JWT_ISSUER": ""}, "JWT_ISSUER"),
        ({"JWT_AUDIENCE": " "}, "JWT_AUDIENCE"),
        ({"JWT_SECRET": "a" * 31}, "JWT_SECRET"),
        ({"JWT_SECRET": "ssh-rsa " + "A" * 80}, "JWT_SECRET"),
        ({"JWT_SECRET": '{"kty":"oct","k":"' + "a" * 43 + '"}'}, "JWT_SECRET"),
        ({"AUTH": "off"}, "JWT_SECRET"),
        ({"AUTH": ""}, "JWT_SECRET"),
        ({"AUTH": "off", "JWT_SECRET": ""}, "JWT_ISSUER"),
        ({"AUTH": "", "JWT_SECRET": "", "JWT_ISSUER": ""}, "JWT_AUDIENCE"),
    ],
)
def test_settings_of_tokens_that_do_not_fit_together_are_refused(
    more: dict[str, str], name: str
) -> None:
    message = refusal(**{**BY_SECRET, **more})
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    assert SECRET not in message


@pytest.mark.parametrize("secret", ["a" * 32, "\u00e9" * 16, "1" * 40, '"' * 40, "[" + "1," * 20])
def test_any_text_of_32_bytes_is_a_secret(secret: str) -> None:
    assert read_settings({**BY_SECRET, "JWT_SECRET": secret}).jwt_secret == secret


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "https://id.example:8443/keys?v=1",
        "http://127.0.0.1:9/k",
        "http://localhost/k",
        "http://[::1]/k",
    ],
)
def test_keys_are_fetched_over_tls_or_from_this_machine(url: str) -> None:
    assert read_settings({**BY_KEY_SET, "JWT_JWKS_URL": url}).jwt_jwks_url == url


@pytest.mark.parametrize(
    "url",
    [
        *("http://id.example/keys", "http://192.168.1.5/keys", "http://127.0.0.1.example/keys"),
        *("file:///etc/keys", "ftp://id.example/keys", "https:///keys", "https://", "id.example/keys"),
        *("https://user:hunter2@id.example/", "https://id.example/#keys", "https://id.example:x/"),
        *(
            "https://id.example:99999/",
            "https://[::1/keys",
            "https://id.example/a b",
            "https://\u00e9.example/",
        ),
        *("https://a..b/x", "https://.example/keys", f"https://{'a' * 64}.example/keys"),
    ],
)
def test_any_other_address_of_keys_is_refused(url: str) -> None:
    message = refusal(**{**BY_KEY_SET, "JWT_JWKS_URL": url})
    assert message.startswith("JWT_JWKS_URL: ")
    assert "hunter2" not in message


def test_settings_do_not_show_their_values() -> None:
    assert SECRET not in f"{read_settings(BY_SECRET)!r} {read_settings(BY_SECRET)}"


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.example.org", "2001:db8::1"]
)
def test_auth_left_unset_on_an_open_address_is_refused(host: str) -> None:
    assert refusal(HOST=host).startswith("AUTH: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.255.254", "::1", "localhost"])
def test_auth_left_unset_on_a_loopback_address_is_fine(host: str) -> None:
    assert read_settings({"HOST": host}).auth is Authentication.UNSET


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "192.168.1.5", "example.org"]
)
def test_auth_off_is_fine_on_any_address(host: str) -> None:
    assert read_settings({"HOST": host, "AUTH": "off"}).auth is Authentication.OFF
