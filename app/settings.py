"""Every setting: its variable, default, unit and meaning. Read by `main` and the server alone."""

import ipaddress
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Final, get_type_hints

import msgspec
from msgspec import Meta

from app.core.currency import ISO_4217

MEMORY: Final = "memory://"
SQLITE: Final = "sqlite:///"

_CODE: Final = re.compile(r"[A-Z0-9]{2,12}")

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
            "absolute one), or `memory://`."
        ),
    ] = "sqlite:///data/millrace.db"
    window_seconds: Annotated[
        int, Meta(ge=1, le=3600, description="Length of the window, in seconds.")
    ] = 60
    future_skew_ms: Annotated[
        int,
        Meta(ge=0, le=4000, description="How far a timestamp may lie ahead of the clock, in ms."),
    ] = 1000
    late: Annotated[
        Late,
        Meta(
            description="What happens to a transaction older than the window: `discard` answers 204, "
            "`keep` stores it without counting it."
        ),
    ] = Late.DISCARD
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
    log_level: Annotated[LogLevel, Meta(description="Least severe event logged.")] = LogLevel.INFO

    @property
    def currencies(self) -> frozenset[str]:
        """Every code a transaction may carry."""
        return ISO_4217 | set(_codes(self.extra_currencies))

    @property
    def database_path(self) -> Path | None:
        """The database file, or None where rows are kept in memory."""
        return None if self.database_url == MEMORY else Path(self.database_url[len(SQLITE) :])


# Parts that are not built yet: to accept their settings would be a promise.
_NOT_BUILT: Final = (
    "REDIS_URL",
    "NODE_ID",
    "TRUSTED_PROXIES",
    "CORS_ORIGINS",
    "JWT_SECRET",
    "JWT_JWKS_URL",
    "JWT_ISSUER",
    "JWT_AUDIENCE",
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
    for code in _codes(settings.extra_currencies):
        if not _CODE.fullmatch(code):
            raise SettingsError(
                f"EXTRA_CURRENCIES: {code!r} is not a code of 2 to 12 capitals and digits"
            )
    if settings.default_currency not in settings.currencies:
        raise SettingsError(
            "DEFAULT_CURRENCY: must be an ISO 4217 code in capitals, or one of EXTRA_CURRENCIES"
        )
    url = settings.database_url
    if url != MEMORY and not _FILE_URL.fullmatch(url):
        raise SettingsError("DATABASE_URL: must be sqlite:/// and the path of a file, or memory://")
    if settings.auth is Authentication.UNSET and not _is_loopback(settings.host):
        raise SettingsError(
            f"AUTH: must be set where HOST ({settings.host}) is not a loopback address; "
            "AUTH=off lets in whoever can connect"
        )


def _codes(text: str) -> list[str]:
    return [code.strip() for code in text.split(",") if code.strip()]


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
