"""The guard of a deployment with tokens: remembers who it has verified, and words its refusals.

Verified tokens are found by the very bytes of their header, in a dictionary: it compares them only where
their keyed 64-bit hashes are equal, so that the time it takes tells nothing, and a digest of the token
would cost the fast lane more than all else here. What is refused is remembered apart, so that no
amount of it makes the service forget a caller.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import msgspec

from app.web.answers import Answer, Code, Problem, problem
from app.web.guard import FORBIDDEN, REALM, Caller, Permission
from app.web.tokens import TOKEN_BYTES_MAX, Flaw, KeysUnavailable, Trusted, Untrusted, Verifier

_KNOWN_MAX: Final = 10_000
_KNOWN_BYTES_MAX: Final = 16 * 2**20
_REFUSED_MAX: Final = 1024
_REMEMBERED_MS: Final = 60_000
_RETRY_AFTER_SECONDS: Final = 5

# One space, as everyone writes it: with more, one token would have many spellings to remember.
_BEARER: Final = re.compile(rb"bearer (.*)", re.IGNORECASE | re.DOTALL)

# These may turn out well later, without a change of the keys.
_PASSING: Final = frozenset((Flaw.EARLY, Flaw.UNKNOWN_KEY))


def _unauthorized(detail: str, challenge: str) -> Answer:
    headers = ((b"www-authenticate", challenge.encode()),)
    return problem(HTTPStatus.UNAUTHORIZED, Code.UNAUTHORIZED, detail, headers=headers)


_NO_TOKEN: Final = _unauthorized("A bearer token is required", REALM)
_UNTRUSTED: Final = {
    flaw: _unauthorized(flaw.value, f'{REALM}, error="invalid_token", error_description="{flaw.value}"')
    for flaw in Flaw
}
_KEYS_UNAVAILABLE: Final = problem(
    HTTPStatus.SERVICE_UNAVAILABLE,
    Code.KEYS_UNAVAILABLE,
    "The token cannot be judged now: the keys of its issuer are not at hand",
    headers=((b"retry-after", b"%d" % _RETRY_AFTER_SECONDS),),
)


class _Known(msgspec.Struct, frozen=True, gc=False):
    """A caller whose token was verified, and the times between which that needs no second look."""

    caller: Caller
    from_ms: int
    until_ms: float


class _Refused(msgspec.Struct, frozen=True, gc=False):
    """The answer to a token that was refused, and the same of it."""

    answer: Answer
    from_ms: int
    until_ms: int


class TokenGuard:
    """Lets in bearers of valid tokens, to what their scope permits. `now_ms` is the clock."""

    everyone: Caller | None = None

    def __init__(self, verifier: Verifier, now_ms: Callable[[], int]) -> None:
        self._verifier = verifier
        self._now_ms = now_ms
        self._known: OrderedDict[bytes | None, _Known] = OrderedDict()
        self._known_bytes = 0
        self._refused: OrderedDict[bytes, _Refused] = OrderedDict()

    def recognise(self, authorization: bytes | None, permission: Permission) -> Caller | None:
        """A caller whose token was verified in the last minute."""
        known = self._known.get(authorization)
        if known is None or not known.from_ms <= self._now_ms() < known.until_ms:
            return None
        caller = known.caller
        return caller if permission in caller.permissions else None

    async def admit(self, authorization: bytes | None, permission: Permission) -> Caller:
        """Verify the token, unless that was just done. Raises Problem."""
        bearer = _BEARER.fullmatch(authorization or b"")
        if authorization is None or bearer is None:
            raise Problem(_NO_TOKEN)
        known = self._known.get(authorization)
        if known is not None and known.from_ms <= self._now_ms() < known.until_ms:
            caller = known.caller
        else:
            caller = await self._verify(authorization, bearer[1])
        if permission not in caller.permissions:
            raise Problem(FORBIDDEN[permission])
        return caller

    def forget(self) -> None:
        """Verify every token anew: the keys have changed."""
        self._known.clear()
        self._known_bytes = 0
        self._refused.clear()

    async def _verify(self, authorization: bytes, token: bytes) -> Caller:
        if len(token) > TOKEN_BYTES_MAX:
            raise Problem(_UNTRUSTED[Flaw.MALFORMED])
        digest = hashlib.sha256(token).digest()
        refused = self._refused.get(digest)
        if refused is not None and refused.from_ms <= self._now_ms() < refused.until_ms:
            raise Problem(refused.answer)
        try:
            trusted = await self._verifier.verify(token)
        except KeysUnavailable:
            raise Problem(_KEYS_UNAVAILABLE) from None
        except Untrusted as error:
            answer = _UNTRUSTED[error.flaw]
            if error.flaw not in _PASSING:
                self._remember_refusal(digest, answer)
            raise Problem(answer) from None
        self._remember(authorization, trusted)
        return trusted.caller

    def _remember(self, authorization: bytes, trusted: Trusted) -> None:
        known, now_ms = self._known, self._now_ms()
        self._drop(authorization)
        while known and (
            len(known) >= _KNOWN_MAX or self._known_bytes + len(authorization) > _KNOWN_BYTES_MAX
        ):
            self._drop(next(iter(known)))
        until_ms = min(trusted.expires_ms, now_ms + _REMEMBERED_MS)
        known[authorization] = _Known(trusted.caller, now_ms, until_ms)
        self._known_bytes += len(authorization)

    def _drop(self, authorization: bytes | None) -> None:
        if self._known.pop(authorization, None) is not None:
            self._known_bytes -= len(authorization or b"")

    def _remember_refusal(self, digest: bytes, answer: Answer) -> None:
        now_ms = self._now_ms()
        self._refused.pop(digest, None)
        if len(self._refused) >= _REFUSED_MAX:
            self._refused.popitem(last=False)
        self._refused[digest] = _Refused(answer, now_ms, now_ms + _REMEMBERED_MS)
