"""How much one caller may ask: a token bucket each (an option).

A bucket is one number, the time at which it will be full again (the generic cell rate algorithm), so a
caller who has been idle that long needs none. A request costs one, and so does a batch: the limit
is there to keep callers from crowding each other out, to send many at once is how they are meant
not to, and what a batch may hold is bounded itself.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from starlette.types import Scope

from app.web.answers import Answer, Code, problem

# Some 20 MB. Beyond it the caller who was idle longest is forgotten, which may let one in too often.
CALLERS_MAX: Final = 100_000
# Whoever has an IPv6 address has as many as they like, of one such network.
_IPV6_PREFIX_BITS: Final = 64
_ADDRESS_CHARS_MAX: Final = 64
_REQUEST_STEPS: Final = 1000


class RateLimit:
    """Lets each caller `per_second` times a second, and `burst` times at once. `now_ms` is the clock."""

    def __init__(self, per_second: int, burst: int, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        # Times in steps of which a request costs a thousand: whole numbers at any rate.
        self._per_second = per_second
        self._burst_steps = burst * _REQUEST_STEPS
        self._full_at: OrderedDict[str | bytes, int] = OrderedDict()
        self._policy = b'"caller";q=%d;w=%d' % (burst, -(-burst // per_second))

    def take(self, caller: str | bytes) -> Answer | None:
        """Take from the caller's bucket; the refusal where there is nothing left in it."""
        buckets, now = self._full_at, self._now_ms() * self._per_second
        empty = now + self._burst_steps
        full_at = buckets.get(caller, now)
        if not now <= full_at <= empty:
            full_at = now  # It is full, or of the time before the clock was set back.
        full_at += _REQUEST_STEPS
        if full_at > empty:
            return self._refuse(full_at - empty)
        buckets[caller] = full_at
        buckets.move_to_end(caller)
        if len(buckets) > CALLERS_MAX or buckets[next(iter(buckets))] <= now:
            buckets.popitem(last=False)
        return None

    def _refuse(self, wait_steps: int) -> Answer:
        seconds = -(-wait_steps // (_REQUEST_STEPS * self._per_second))
        return problem(
            HTTPStatus.TOO_MANY_REQUESTS,
            Code.RATE_LIMITED,
            f"More than is allowed; there is room again in {seconds} s",
            headers=(
                (b"retry-after", b"%d" % seconds),
                (b"ratelimit-policy", self._policy),
                (b"ratelimit", b'"caller";r=0;t=%d' % seconds),
            ),
        )


def address_name(scope: Scope) -> bytes:
    """The network address a request came from, as far as it tells callers apart."""
    host = (scope["client"] or ("",))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)[:_ADDRESS_CHARS_MAX].encode()
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return address.packed[: _IPV6_PREFIX_BITS // 8]
        address = address.ipv4_mapped
    return address.packed
