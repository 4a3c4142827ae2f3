"""Reads the settings from the environment, and says what is wrong with them, in one line."""

import ipaddress
import re
from collections.abc import Mapping
from enum import Enum
from typing import Final, get_type_hints
from urllib.parse import urlsplit

import msgspec

from app.settings import MEMORY, SERVER_URL, SQLITE, Authentication, Settings, SettingsError, words

_CODE: Final = re.compile(r"[A-Z0-9]{2,12}")

# As browsers send it: in lower case, without a path, and without the port that its scheme has anyway.
_ORIGIN: Final = re.compile(
    r"(?:http(?!.*:80$)|https(?!.*:443$))://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
)

_REDIS_SCHEMES: Final = ("redis", "rediss")

_NODE: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")

_DIGITS: Final = re.compile(r"[0-9]+")

_JWT: Final = ("JWT_SECRET", "JWT_JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE")

_SECRET_BYTES_MIN: Final = 32

# The last part names a file; SQLite itself would take :memory: and file: for something else.
_FILE_URL: Final = re.compile(rf"{SQLITE}(?!file:)(?:.*/)?(?!\.{{1,2}}$|:)[^/]+")


Environment = Mapping[str, str]


def read_settings(environment: Environment) -> Settings:
    """Read the settings. An empty variable is as if it were unset. Raises SettingsError."""
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    for name in (field.encode_name for field in msgspec.structs.fields(Settings)):
        if not given.get(name, "").isprintable():
            raise SettingsError(f"{name}: must be printable text in UTF-8")
    if "LOG_LEVEL" in given:
        given["LOG_LEVEL"] = given["LOG_LEVEL"].lower()
    for field, kind in get_type_hints(Settings).items():
        name = field.upper()
        # The conversion would take 8e1 for 80.
        if kind is int and name in given and not _DIGITS.fullmatch(given[name]):
            raise SettingsError(f"{name}: must be a whole number, in digits alone")
    try:
        settings = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).rpartition(" - at ")
        name = path.strip("`$.")
        raise SettingsError(f"{name}: {reason}{_choices(name)}") from None
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    """What a type cannot say. Raises SettingsError."""
    for code in words(settings.extra_currencies):
        if not _CODE.fullmatch(code):
            raise SettingsError(
                f"EXTRA_CURRENCIES: {code!r} is not a code of 2 to 12 capitals and digits"
            )
    if settings.default_currency not in settings.currencies:
        raise SettingsError(
            "DEFAULT_CURRENCY: must be an ISO 4217 code in capitals, or one of EXTRA_CURRENCIES"
        )
    url = settings.database_url
    if url != MEMORY and not settings.has_database_server and not _FILE_URL.fullmatch(url):
        raise SettingsError(
            "DATABASE_URL: must be sqlite:/// and the path of a file, postgresql://, or memory://"
        )
    if url == MEMORY and settings.workers > 1:
        raise SettingsError("WORKERS: must be 1 with DATABASE_URL=memory://")
    if settings.has_database_server and not SERVER_URL.fullmatch(url):
        # What libpq would take for the host it would name in its errors.
        raise SettingsError(
            "DATABASE_URL: @ and / in a user's name or password must be written as %40 and %2F"
        )
    _check_nodes(settings)
    _check_auth(settings)
    _check_callers(settings)


def _check_nodes(settings: Settings) -> None:
    if not settings.redis_url:
        if settings.node_id:
            raise SettingsError("NODE_ID: means nothing without REDIS_URL")
        return
    try:
        parts = urlsplit(settings.redis_url)
        is_right = bool(parts.hostname) and parts.port != 0 and not parts.query and not parts.fragment
    except ValueError:
        is_right = False
    if not (is_right and parts.scheme in _REDIS_SCHEMES and re.fullmatch("(/[0-9]*)?", parts.path)):
        # Without what was given: a part of it is a password.
        raise SettingsError(
            "REDIS_URL: must be redis:// or rediss://, a host, and / and a database's number"
        )
    if not _NODE.fullmatch(settings.node):
        raise SettingsError("NODE_ID: must have 1 to 64 letters, digits and any of . _ : -")


def _check_auth(settings: Settings) -> None:
    if settings.auth is Authentication.UNSET and not _is_loopback(settings.host):
        raise SettingsError(
            f"AUTH: must be set where HOST ({settings.host}) is not a loopback address; "
            "AUTH=off lets in whoever can connect"
        )
    given = {name: getattr(settings, name.lower()) for name in _JWT}
    if settings.auth is not Authentication.JWT:
        given["METRICS_AUTH"] = settings.metrics_auth
        for name in filter(given.get, given):
            raise SettingsError(f"{name}: means nothing without AUTH=jwt")
        return
    if bool(settings.jwt_secret) == bool(settings.jwt_jwks_url):
        raise SettingsError("AUTH: jwt needs either JWT_SECRET or JWT_JWKS_URL, and not both")
    for name in ("JWT_ISSUER", "JWT_AUDIENCE"):
        if not given[name]:
            raise SettingsError(f"{name}: must be set where AUTH=jwt")
    if settings.jwt_jwks_url:
        _check_key_set_url(settings.jwt_jwks_url)
    else:
        _check_secret(settings.jwt_secret)


def _check_secret(secret: str) -> None:
    if len(secret.encode()) < _SECRET_BYTES_MIN:
        raise SettingsError(f"JWT_SECRET: must have at least {_SECRET_BYTES_MIN} bytes")
    # Here, as only who asks for tokens needs cryptography.
    from jwt import InvalidKeyError, get_algorithm_by_name

    try:
        # Whoever has such a key has published it, or knows it as something else.
        get_algorithm_by_name("HS256").prepare_key(secret)
    except InvalidKeyError:
        raise SettingsError("JWT_SECRET: must not be a public key, a certificate or a JWK") from None


def _check_key_set_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, is_plain = parts.hostname or "", parts.scheme == "http"
        is_right = parts.port != 0 and parts.username is None and not parts.fragment and url.isascii()
        # As the look-up will: it raises where a part of the name is empty or too long.
        host.encode("idna")
    except ValueError:
        is_right = False
    if not (is_right and host and " " not in url) or parts.scheme not in ("https", "http"):
        raise SettingsError("JWT_JWKS_URL: must be an https URL without user and fragment")
    if is_plain and not _is_loopback(host):
        raise SettingsError("JWT_JWKS_URL: must be https, as its host is not a loopback address")


def _check_callers(settings: Settings) -> None:
    if settings.rate_limit_burst and not settings.rate_limit_per_second:
        raise SettingsError("RATE_LIMIT_BURST: means nothing without RATE_LIMIT_PER_SECOND")
    for proxy in settings.proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            raise SettingsError(
                f"TRUSTED_PROXIES: {proxy!r} is no address or network, such as 10.0.0.0/8"
            ) from None
    for origin in settings.origins:
        if not _ORIGIN.fullmatch(origin):
            raise SettingsError(
                f"CORS_ORIGINS: {origin!r} is no origin as browsers send it, such as https://example.org"
            )


def _choices(name: str) -> str:
    """What a variable with a fixed set of values accepts."""
    hints = get_type_hints(Settings)
    hint = hints.get(name.lower())
    if not (isinstance(hint, type) and issubclass(hint, Enum)):
        return ""
    return f"; must be one of: {', '.join(choice.value for choice in hint if choice.value)}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
