"""The issuer's public keys (RFC 7517), kept at hand and kept fresh.

They are fetched every 45 s, so a key that is published a minute before it signs is here in time, and one
that was withdrawn is soon believed no more. A token that names an unknown key has them fetched at
once, but within 30 s of the last fetch nobody's token does: names cost an attacker nothing. While
the issuer is away its keys go on being used, for a day at most.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from app.web.fetch import FetchFailed
from app.web.tokens import Algorithm, Flaw, Key, KeysUnavailable, Untrusted

_REFRESH_SECONDS: Final = 45.0
_RETRY_SECONDS: Final = 10.0
_COOLDOWN_MS: Final = 30_000
_STALE_MS_MAX: Final = 86_400_000
_KEYS_MAX: Final = 100
_RSA_BITS_MIN: Final = 2048
_CURVE: Final = "secp256r1"

_Name = tuple[Algorithm, str]

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class KeySet:
    """Finds the key that a token names.

    `fetch` gets the key set's JSON and raises FetchFailed. `on_change` is called whenever what was
    verified before must be verified anew.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[bytes]],
        now_ms: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._fetch = fetch
        self._now_ms = now_ms
        self._sleep = sleep
        self._keys: dict[_Name, Key] = {}
        self._asked_ms: int | None = None
        self._read_ms = 0
        self._is_current = False
        """Whether the last fetch succeeded."""
        self._fetching: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self.on_change: Callable[[], None] = lambda: None

    async def find(self, algorithm: Algorithm, key_id: str | None) -> Key:
        """The key of that name, of the type that the algorithm needs."""
        if algorithm is Algorithm.HS256:
            raise Untrusted(Flaw.MALFORMED)
        if key_id is None:
            raise Untrusted(Flaw.UNKNOWN_KEY)
        name = algorithm, key_id
        key = self._find(name)
        if key is None and (self._fetching is not None or self._may_ask()):
            await self._refresh()
            key = self._find(name)
        if key is not None:
            return key
        if not self._is_current:
            raise KeysUnavailable
        raise Untrusted(Flaw.UNKNOWN_KEY)

    def keep_fresh(self) -> None:
        """Fetch the keys now and then, for as long as the event loop lives."""
        self._refreshing = asyncio.get_running_loop().create_task(self._keep_fresh())

    async def _keep_fresh(self) -> None:
        while True:
            await self._refresh()
            while (rest_seconds := self._rest_seconds()) > 0:
                await self._sleep(rest_seconds)

    def _rest_seconds(self) -> float:
        """How long it may be until the next fetch; an unknown key may have caused one since the last."""
        period_seconds = _REFRESH_SECONDS if self._is_current else _RETRY_SECONDS
        passed_seconds = (self._now_ms() - (self._asked_ms or 0)) / 1000
        return min(period_seconds - passed_seconds, period_seconds)

    def _find(self, name: _Name) -> Key | None:
        is_stale = self._now_ms() - self._read_ms > _STALE_MS_MAX
        return None if is_stale else self._keys.get(name)

    def _may_ask(self) -> bool:
        # A clock that was set back has nobody wait for the time to come again.
        return self._asked_ms is None or not 0 <= self._now_ms() - self._asked_ms < _COOLDOWN_MS

    async def _refresh(self) -> None:
        """Fetch the keys, or wait for them where that is under way."""
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._fetch_keys())
            self._asked_ms = self._now_ms()
        # Whoever waits may be cancelled; the fetch is for everyone.
        await asyncio.shield(self._fetching)

    async def _fetch_keys(self) -> None:
        try:
            self._take(_read_key_set(await self._fetch()))
        except FetchFailed as error:
            self._is_current = False
            log.warning("key_set_unavailable", reason=str(error))
        except Exception:
            # Whatever it is, it is no reason to ask no more.
            self._is_current = False
            log.exception("key_set_failed")
        finally:
            self._fetching = None

    def _take(self, keys: dict[_Name, Key]) -> None:
        self._is_current, self._read_ms = True, self._now_ms()
        if keys != self._keys:
            log.info("key_set_changed", keys=len(keys))
            self._keys = keys
            self.on_change()


def _read_key_set(document: bytes) -> dict[_Name, Key]:
    """The usable keys of a key set. Raises FetchFailed where it is none, or has none."""
    try:
        members = json.loads(document)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise FetchFailed("the answer is no JSON Web Key Set") from None
    keys: dict[_Name, Key] = {}
    for member in members[:_KEYS_MAX] if isinstance(members, list) else ():
        if isinstance(member, dict) and (found := _read_key(member)) is not None:
            keys.setdefault(*found)
    if not keys:
        raise FetchFailed("the key set has no key for RS256 or ES256")
    return keys


def _read_key(member: dict[str, Any]) -> tuple[_Name, Key] | None:
    """A public key for signatures that names itself, or None: sets hold keys for other uses, too."""
    kind, key_id = member.get("kty"), member.get("kid")
    # A private key that was published is nobody's secret any more.
    if kind not in ("RSA", "EC") or not isinstance(key_id, str) or "d" in member:
        return None
    algorithm, read = _KINDS[kind]
    if member.get("use", "sig") != "sig" or member.get("alg", algorithm) != algorithm:
        return None
    try:
        key = read(member)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    is_strong = (
        key.key_size >= _RSA_BITS_MIN if isinstance(key, RSAPublicKey) else key.curve.name == _CURVE
    )
    return ((algorithm, key_id), key) if is_strong else None


_KINDS: Final[dict[str, tuple[Algorithm, Callable[[dict[str, Any]], Any]]]] = {
    "RSA": (Algorithm.RS256, RSAAlgorithm.from_jwk),
    "EC": (Algorithm.ES256, ECAlgorithm.from_jwk),
}
