"""Every setting: its variable, default, unit and meaning. Read by `main` and the server alone."""

import ipaddress
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Final, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from app.core.currency import ISO_4217

MEMORY: Final = "memory://"
SQLITE: Final = "sqlite:///"
_POSTGRESQL: Final = ("postgresql://", "postgres://")

# As libpq divides it, and only where nobody could take a part of the password for anything else.
_SERVER_URL: Final = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)(?:(?P<user>[^:@/?]*)(?::[^@/]*)?@)?"
    r"(?P<place>[^@?/]*(?:/[^@?]*(?=\?|$)|(?=$|\?[^@]*$)))(?:\?.*)?"
)

_CODE: Final = re.compile(r"[A-Z0-9]{2,12}")

# As browsers send it: in lower case, without a path, and without the port that its scheme has anyway.
_ORIGIN: Final = re.compile(
    r"(?:http(?!.*:80$)|https(?!.*:443$))://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
)

_DIGITS: Final = re.compile(r"[0-9]+")

_JWT: Final = ("JWT_SECRET", "JWT_JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE")
_SECRET_BYTES_MIN: Final = 32

# The last part names a file; SQLite itself would take :memory: and file: for something else.
_FILE_URL: Final = re.compile(rf"{SQLITE}(?!file:)(?:.*/)?(?!\.{{1,2}}$|:)[^/]+")

Environment = Mapping[str, str]


class SettingsError(ValueError):
    """A setting is wrong; the message names the variable and what it accepts."""


class Late(Enum):
    """What happens to a transaction older than the window."""

    DISCARD = "discard"
    KEEP = "keep"


class Authentication(Enum):
    """Who may enter."""

    UNSET = ""
    OFF = "off"
    JWT = "jwt"


class Switch(Enum):
    """Whether a part is in use."""

    ON = "on"
    OFF = "off"


class LogLevel(Enum):
    """The least severe events that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """The service's configuration. Fields are named as their variables, in lower case."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="Port to listen on.")] = 8000
    database_url: Annotated[
        str,
        Meta(
            description="Where transactions are kept: `sqlite:///` and a path (four slashes for an "
            "absolute one), `postgresql://`, or `memory://`."
        ),
    ] = "sqlite:///data/millrace.db"
    window_seconds: Annotated[
        int, Meta(ge=1, le=3600, description="Length of the window, in seconds.")
    ] = 60
    future_skew_ms: Annotated[
        int,
        Meta(ge=0, le=4000, description="How far a timestamp may lie ahead of the clock, in ms."),
    ] = 1000
    user_rows_max: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000_000,
            description="Transactions in the window that are held for figures of single users; 0: none.",
        ),
    ] = 1_000_000
    late: Annotated[
        Late,
        Meta(
            description="What happens to a transaction older than the window: `discard` answers 204, "
            "`keep` stores it without counting it."
        ),
    ] = Late.DISCARD
    retention_days: Annotated[
        int,
        Meta(
            ge=0,
            le=36_500,
            description="Transactions are deleted so many days after they were taken in; 0: never.",
        ),
    ] = 0
    allow_negative_amounts: Annotated[bool, Meta(description="Whether refunds may be posted.")] = False
    default_currency: Annotated[str, Meta(description="Currency of a transaction without one.")] = "USD"
    extra_currencies: Annotated[
        str, Meta(description="Codes accepted beside ISO 4217, separated by commas.")
    ] = "BTC,ETH,USDT,USDC"
    workers: Annotated[int, Meta(ge=1, le=1, description="Processes.")] = 1
    fast_lane: Annotated[
        Switch, Meta(description="`off`: every request takes the plain way through the application.")
    ] = Switch.ON
    keep_alive_seconds: Annotated[
        int, Meta(ge=1, le=3600, description="How long an idle connection stays open, in seconds.")
    ] = 5
    connections_max: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Connections at a time; fewer where the limit of open files is lower.",
        ),
    ] = 4000
    auth: Annotated[
        Authentication,
        Meta(description="`off`: anyone who can connect may do anything. Unset: only on loopback."),
    ] = Authentication.UNSET
    jwt_secret: Annotated[
        str, Meta(description="Secret of at least 32 bytes that tokens are signed with (HS256).")
    ] = ""
    jwt_jwks_url: Annotated[
        str,
        Meta(description="Where the issuer publishes the keys tokens are signed with (RS256, ES256)."),
    ] = ""
    jwt_issuer: Annotated[str, Meta(description="The `iss` a token must have.")] = ""
    jwt_audience: Annotated[str, Meta(description="The `aud` a token must have, or one of them.")] = ""
    rate_limit_per_second: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="Requests a second each caller may send; 0: any number."),
    ] = 0
    rate_limit_burst: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="Requests a caller may send at once; 0: a second's."),
    ] = 0
    trusted_proxies: Annotated[
        str,
        Meta(description="Addresses and networks of proxies whose `X-Forwarded-For` is believed."),
    ] = ""
    cors_origins: Annotated[
        str, Meta(description="Origins whose pages may call from a browser, separated by commas.")
    ] = ""
    log_level: Annotated[LogLevel, Meta(description="Least severe event logged.")] = LogLevel.INFO

    def __repr__(self) -> str:
        """Without values: one of them is a secret."""
        return "Settings(...)"

    @property
    def authentication(self) -> str:
        """Who may enter, in words for an operator."""
        if self.auth is Authentication.JWT:
            return "jwt (secret)" if self.jwt_secret else "jwt (key set)"
        return self.auth.value or "off (loopback only)"

    @property
    def currencies(self) -> frozenset[str]:
        """Every code a transaction may carry."""
        return ISO_4217 | set(_words(self.extra_currencies))

    @property
    def origins(self) -> list[str]:
        """The origins whose pages may call."""
        return _words(self.cors_origins)

    @property
    def proxies(self) -> list[str]:
        """The addresses and networks of the proxies that are trusted."""
        return _words(self.trusted_proxies)

    @property
    def database_path(self) -> Path | None:
        """The database file, or None where rows are kept in memory or by a server."""
        url = self.database_url
        return Path(url[len(SQLITE) :]) if url.startswith(SQLITE) else None

    @property
    def has_database_server(self) -> bool:
        """Whether rows are kept by PostgreSQL."""
        return self.database_url.startswith(_POSTGRESQL)

    @property
    def database(self) -> str:
        """Where rows are kept, for an operator to read: without a password, wherever that stands."""
        found = _SERVER_URL.fullmatch(self.database_url)
        if found is None:
            return self.database_url
        user = "" if found["user"] is None else found["user"] + "@"
        return found["scheme"] + user + found["place"]


# Parts that are not built yet: to accept their settings would be a promise.
_NOT_BUILT: Final = (
    "REDIS_URL",
    "NODE_ID",
)


def read_settings(environment: Environment) -> Settings:
    """Read the settings. An empty variable is as if it were unset. Raises SettingsError."""
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    for name in (*_NOT_BUILT, *(field.encode_name for field in msgspec.structs.fields(Settings))):
        if not given.get(name, "").isprintable():
            raise SettingsError(f"{name}: must be printable text in UTF-8")
    for name in _NOT_BUILT:
        if name in given:
            raise SettingsError(f"{name}: not supported by this version")
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
    for code in _words(settings.extra_currencies):
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
    if settings.has_database_server and not _SERVER_URL.fullmatch(url):
        # What libpq would take for the host it would name in its errors.
        raise SettingsError(
            "DATABASE_URL: @ and / in a user's name or password must be written as %40 and %2F"
        )
    _check_auth(settings)
    _check_callers(settings)


def _check_auth(settings: Settings) -> None:
    if settings.auth is Authentication.UNSET and not _is_loopback(settings.host):
        raise SettingsError(
            f"AUTH: must be set where HOST ({settings.host}) is not a loopback address; "
            "AUTH=off lets in whoever can connect"
        )
    given = {name: getattr(settings, name.lower()) for name in _JWT}
    if settings.auth is not Authentication.JWT:
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


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


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
