"""Tokens: what a JSON Web Token must be for its bearer to be believed (RFC 7519, RFC 8725).

PyJWT checks the signature, issuer and audience. What it is lenient in, or would ask the system's clock
for, is checked here. Imported only where tokens are asked for: cryptography costs a start some 30 ms.
"""

import json
import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Any, Final, Protocol, TypeVar

import jwt
import msgspec
from jwt.algorithms import AllowedPublicKeys
from jwt.exceptions import InvalidJTIError, InvalidSubjectError

from app.core.transaction import USER_ID
from app.web.guard import IMPLIED, Caller, Permission

TOKEN_BYTES_MAX: Final = 8192
LEEWAY_MS: Final = 30_000

# Without padding and white space, and with nothing behind: one token, one spelling.
_TOKEN: Final = re.compile(rb"([\w-]+)\.([\w-]+)\.[\w-]+")
_TYPES: Final = frozenset(("jwt", "at+jwt", "application/at+jwt"))
_REQUIRED: Final = ["exp", "iss", "aud", "sub"]
# What is later than any clock says "never", as does 1e999, and tokens are to expire.
_EXPIRY_SECONDS_MAX: Final = 10**12
_PERMISSIONS: Final = {permission.value: permission for permission in Permission}

Key = AllowedPublicKeys | bytes


class Algorithm(StrEnum):
    """How a token may be signed; the words are those of its `alg`."""

    HS256 = "HS256"
    RS256 = "RS256"
    ES256 = "ES256"


class Flaw(Enum):
    """Why a token is not believed."""

    MALFORMED = "The token is not one this service takes"
    UNKNOWN_KEY = "The token names no key of the issuer"
    SIGNATURE = "The token's signature is wrong"
    ISSUER = "The token is another issuer's"
    AUDIENCE = "The token is for another audience"
    CLAIMS = "A claim of the token is missing or wrong"
    EXPIRED = "The token has expired"
    EARLY = "The token is not valid yet"


class Untrusted(Exception):
    """A token is not to be believed."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.value)
        self.flaw = flaw


class KeysUnavailable(Exception):
    """Whether a token is to be believed cannot be told: the issuer's keys are not at hand."""


class Keys(Protocol):
    """The keys of one issuer, all of one family."""

    async def find(self, algorithm: Algorithm, key_id: str | None) -> Key:
        """The key to verify with. Raises Untrusted and KeysUnavailable."""


class SharedSecret:
    """The one key of an issuer who signs with a secret this service knows."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    async def find(self, algorithm: Algorithm, key_id: str | None) -> Key:
        """The secret, for HS256 alone. There is one, so it needs no name."""
        if algorithm is not Algorithm.HS256:
            raise Untrusted(Flaw.MALFORMED)
        return self._secret


class Trusted(msgspec.Struct, frozen=True, gc=False):
    """Who a token speaks for, and until when at most, in milliseconds since the epoch."""

    caller: Caller
    expires_ms: float


class _Header(msgspec.Struct, frozen=True):
    alg: Algorithm
    kid: str | None = None
    typ: str = "JWT"
    crit: Any = None


class _Claims(msgspec.Struct, frozen=True):
    sub: str
    exp: int | float
    nbf: int | float = -math.inf
    iat: int | float = -math.inf
    scope: str = ""


Part = TypeVar("Part", _Header, _Claims)


class Verifier:
    """Judges tokens of one issuer for one audience. `now_ms` is the clock."""

    def __init__(self, keys: Keys, issuer: str, audience: str, now_ms: Callable[[], int]) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._now_ms = now_ms

    async def verify(self, token: bytes) -> Trusted:
        """Who the token speaks for. Raises Untrusted, and KeysUnavailable where that is not known."""
        parts = _TOKEN.fullmatch(token) if len(token) <= TOKEN_BYTES_MAX else None
        if parts is None:
            raise Untrusted(Flaw.MALFORMED)
        header = _read(parts[1], _Header, Flaw.MALFORMED)
        # Keys and addresses of keys that a header brings along are not looked at.
        if header.crit is not None or header.typ.lower() not in _TYPES:
            raise Untrusted(Flaw.MALFORMED)
        key = await self._keys.find(header.alg, header.kid)
        self._check_signature(token, header.alg, key)
        return self._trust(_read(parts[2], _Claims, Flaw.CLAIMS))

    def _check_signature(self, token: bytes, algorithm: Algorithm, key: Key) -> None:
        try:
            # The times are compared with our own clock.
            jwt.decode(
                token,
                key,
                [algorithm.value],
                {
                    "require": _REQUIRED,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "enforce_minimum_key_length": True,
                },
                audience=self._audience,
                issuer=self._issuer,
            )
        except jwt.InvalidIssuerError:
            raise Untrusted(Flaw.ISSUER) from None
        except jwt.InvalidAudienceError:
            raise Untrusted(Flaw.AUDIENCE) from None
        except (jwt.MissingRequiredClaimError, InvalidSubjectError, InvalidJTIError):
            raise Untrusted(Flaw.CLAIMS) from None
        except jwt.InvalidSignatureError:
            raise Untrusted(Flaw.SIGNATURE) from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise Untrusted(Flaw.MALFORMED) from None

    def _trust(self, claims: _Claims) -> Trusted:
        now_ms = self._now_ms()
        if not (USER_ID.fullmatch(claims.sub) and claims.exp < _EXPIRY_SECONDS_MAX):
            raise Untrusted(Flaw.CLAIMS)
        expires_ms = claims.exp * 1000 + LEEWAY_MS
        if now_ms >= expires_ms:
            raise Untrusted(Flaw.EXPIRED)
        if now_ms < max(claims.nbf, claims.iat) * 1000 - LEEWAY_MS:
            raise Untrusted(Flaw.EARLY)
        words = claims.scope.split(" ")
        stated = {_PERMISSIONS[word] for word in words if word in _PERMISSIONS}
        implied = {IMPLIED[permission] for permission in stated if permission in IMPLIED}
        return Trusted(Caller(claims.sub, frozenset(stated | implied)), expires_ms)


def _read(part: bytes, kind: type[Part], flaw: Flaw) -> Part:
    """One of a token's two objects. Raises Untrusted."""
    try:
        text = urlsafe_b64decode(part + b"=" * (-len(part) % 4)).decode()
        members = json.loads(text, object_pairs_hook=_once_each, parse_constant=_refuse)
        return msgspec.convert(members, kind)
    except (ValueError, RecursionError):
        raise Untrusted(flaw) from None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these members. Raises ValueError where a name comes twice."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name is given twice")
    return members


def _refuse(word: str) -> None:
    """Refuse NaN and Infinity, which are no JSON, and no time."""
    raise ValueError(f"{word} is no number")
