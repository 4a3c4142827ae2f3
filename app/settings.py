"""Every setting: its variable, default, unit and meaning. Seen by `main` and the server alone."""

import re
import socket
from enum import Enum
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from app.core.currency import ISO_4217

MEMORY: Final = "memory://"
SQLITE: Final = "sqlite:///"
_POSTGRESQL: Final = ("postgresql://", "postgres://")

# As libpq divides it, and only where nobody could take a part of the password for anything else.
SERVER_URL: Final = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)(?:(?P<user>[^:@/?]*)(?::[^@/]*)?@)?"
    r"(?P<place>[^@?/]*(?:/[^@?]*(?=\?|$)|(?=$|\?[^@]*$)))(?:\?.*)?"
)


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
    redis_url: Annotated[
        str,
        Meta(
            description="Redis or Valkey over which nodes tell each other what they count, `redis://` "
            "or `rediss://`. Unset: there is one node."
        ),
    ] = ""
    node_id: Annotated[
        str, Meta(description="This node's name, another for each; unset: the name of the host.")
    ] = ""
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
    workers: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="Processes that serve connections; where there are several, one more keeps the "
            "transactions for all of them.",
        ),
    ] = 1
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
            description="Connections at a time, divided among `WORKERS`; fewer where the limit of open "
            "files is lower.",
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
    metrics_auth: Annotated[
        bool,
        Meta(
            description="With AUTH=jwt: whether `/metrics` needs a token, with the scope `stats:read`."
        ),
    ] = False
    rate_limit_per_second: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Requests a second each caller may send, of each of `WORKERS`; 0: any number.",
        ),
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
    slow_request_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=60_000,
            description="Requests that take longer are logged, a few a second; 0: none.",
        ),
    ] = 1000
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
    def changed(self) -> dict[str, object]:
        """Every setting that is not as it is by default, for an operator to read: without secrets."""
        shown = {
            "database_url": self.database,
            "redis_url": self.exchange,
            "jwt_secret": "(hidden)",
            "jwt_jwks_url": self.jwt_jwks_url.partition("?")[0],
        }
        given = {
            field.name: getattr(self, field.name)
            for field in msgspec.structs.fields(self)
            if getattr(self, field.name) != field.default
        }
        return {
            name: shown.get(name, value.value if isinstance(value, Enum) else value)
            for name, value in given.items()
        }

    @property
    def currencies(self) -> frozenset[str]:
        """Every code a transaction may carry."""
        return ISO_4217 | set(words(self.extra_currencies))

    @property
    def origins(self) -> list[str]:
        """The origins whose pages may call."""
        return words(self.cors_origins)

    @property
    def node(self) -> str:
        """The name of this node among others."""
        return self.node_id or socket.gethostname()

    @property
    def proxies(self) -> list[str]:
        """The addresses and networks of the proxies that are trusted."""
        return words(self.trusted_proxies)

    @property
    def database_path(self) -> Path | None:
        """The database file, or None where rows are kept in memory or by a server."""
        url = self.database_url
        return Path(url[len(SQLITE) :]) if url.startswith(SQLITE) else None

    @property
    def exchange(self) -> str:
        """Over what nodes tell each other, for an operator to read: without a password."""
        parts = urlsplit(self.redis_url)
        return (
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
            if self.redis_url
            else "none"
        )

    @property
    def has_database_server(self) -> bool:
        """Whether rows are kept by PostgreSQL."""
        return self.database_url.startswith(_POSTGRESQL)

    @property
    def database(self) -> str:
        """Where rows are kept, for an operator to read: without a password, wherever that stands."""
        found = SERVER_URL.fullmatch(self.database_url)
        if found is None:
            return self.database_url
        user = "" if found["user"] is None else found["user"] + "@"
        return found["scheme"] + user + found["place"]


def words(text: str) -> list[str]:
    """What stands between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]
