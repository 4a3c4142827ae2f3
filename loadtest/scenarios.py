"""What the load scenarios send, and which answer is the right one. Knows neither locust nor a network.

Transactions are made ahead and only stamped when they are sent: to make a thousand anew for every
batch would leave the load tool slower than the service it loads.
"""

import json
import math
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

BATCH_ITEMS: Final = 1000

SINGLE: Final = "/transactions"
SINGLE_IN_BURST: Final = "/transactions in a burst"
LATE: Final = "/transactions, late"
BROKEN: Final = "/transactions, broken JSON"
WRONG: Final = "/transactions, wrong field"
BATCH_ARRAY: Final = "/transactions/batch, array"
BATCH_LINES: Final = "/transactions/batch, NDJSON"

# What a right answer under each name has taken in.
ACCEPTED_BY_SINGLE: Final = {SINGLE: 1, SINGLE_IN_BURST: 1}
ACCEPTED_BY_BATCH: Final = {BATCH_ARRAY: BATCH_ITEMS, BATCH_LINES: BATCH_ITEMS}

# Of each 200 posts, by their place among them. Fixed and early places, not chance, so that even a
# run of a few seconds has some of every kind.
_POSTS_IN_CYCLE: Final = 200
_LATE_PLACES: Final = frozenset({10, 60, 110, 160})
_BROKEN_PLACE: Final = 20
_WRONG_PLACE: Final = 30

# Twice the longest window that can be configured: late for any service.
_LATE_MS: Final = 2 * 3600 * 1000
# A batch was collected for a moment before it is sent.
_BATCH_SPREAD_MS: Final = 250
_BATCH_TEMPLATES: Final = 8
_POOL_TRANSACTIONS: Final = 10_000
_POOL_USERS: Final = 5_000

_JSON: Final = "application/json"
_NDJSON: Final = "application/x-ndjson"

Judge = Callable[[int, bytes], str]
"""Takes the status and the body of an answer; says what is wrong with it, or "" when it is right."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, the name it is counted under, and how its answer is judged."""

    method: str
    name: str
    path: str
    judge: Judge
    body: str = ""
    media_type: str = _JSON


@dataclass(frozen=True, slots=True)
class _Currency:
    code: str
    share: int
    median: float
    digits: int


_CURRENCIES: Final = (
    _Currency("EUR", 45, 24.0, 2),
    _Currency("USD", 30, 26.0, 2),
    _Currency("GBP", 15, 20.0, 2),
    _Currency("CHF", 7, 23.0, 2),
    _Currency("JPY", 3, 3900.0, 0),
)
# Payments spread like this: half lie within a factor of two and a half around the median, and one
# in a hundred is twenty times as large as it.
_AMOUNT_SIGMA: Final = 1.3
_AMOUNT_MAX: Final = 1_000_000.0


def _transaction(chance: random.Random) -> str:
    """A transaction as JSON, with a place for its timestamp."""
    (currency,) = chance.choices(_CURRENCIES, [currency.share for currency in _CURRENCIES])
    value = min(chance.lognormvariate(math.log(currency.median), _AMOUNT_SIGMA), _AMOUNT_MAX)
    amount = f"{value:.{currency.digits}f}"
    if chance.random() < 0.5:
        amount = f'"{amount}"'
    # A few users pay often and most seldom.
    user = int(_POOL_USERS * chance.random() ** 3)
    return f'{{"timestamp":%d,"amount":{amount},"currency":"{currency.code}","user_id":"u-{user}"}}'


# Seeded, so that two runs send the same amounts.
_CHANCE: Final = random.Random(1)
_POOL: Final = [_transaction(_CHANCE) for _ in range(_POOL_TRANSACTIONS)]
_AGES_MS: Final = [_CHANCE.randrange(_BATCH_SPREAD_MS) for _ in range(BATCH_ITEMS)]
_BATCHES: Final = [_CHANCE.choices(_POOL, k=BATCH_ITEMS) for _ in range(_BATCH_TEMPLATES)]
_ARRAYS: Final = ["[" + ",".join(batch) + "]" for batch in _BATCHES]
_LINES: Final = ["".join(transaction + "\n" for transaction in batch) for batch in _BATCHES]

_BROKEN_BODIES: Final = (
    '{"amount":12.50,"currency":"EUR","timestamp":',
    "amount=12.50&currency=EUR",
    '["amount",12.50]',
)
_WRONG_BODIES: Final = (
    ("/amount", '{"timestamp":%d}'),
    ("/amount", '{"timestamp":%d,"amount":"ten"}'),
    ("/currency", '{"timestamp":%d,"amount":1,"currency":"Euro"}'),
    ("/user_id", '{"timestamp":%d,"amount":1,"user_id":""}'),
    ("/timestamp", '{"amount":1,"timestamp":"a while after %d"}'),
)


def post(number: int, now_ms: int, *, in_burst: bool) -> Exchange:
    """The single POST of that number: most are good, some are late or malformed."""
    cycle, place = divmod(number, _POSTS_IN_CYCLE)
    if place in _LATE_PLACES:
        body = _POOL[number % _POOL_TRANSACTIONS] % (now_ms - _LATE_MS)
        return Exchange("POST", LATE, "/transactions", _judge_late, body)
    if place == _BROKEN_PLACE:
        body = _BROKEN_BODIES[cycle % len(_BROKEN_BODIES)]
        return Exchange("POST", BROKEN, "/transactions", _judge_broken, body)
    if place == _WRONG_PLACE:
        pointer, template = _WRONG_BODIES[cycle % len(_WRONG_BODIES)]
        return Exchange("POST", WRONG, "/transactions", _judge_wrong(pointer), template % now_ms)
    name = SINGLE_IN_BURST if in_burst else SINGLE
    body = _POOL[number % _POOL_TRANSACTIONS] % now_ms
    return Exchange("POST", name, "/transactions", _judge_accepted, body)


def batch(number: int, now_ms: int) -> Exchange:
    """The batch of that number: an array and NDJSON in turn."""
    turn, is_lines = divmod(number, 2)
    template = (_LINES if is_lines else _ARRAYS)[turn % _BATCH_TEMPLATES]
    body = template % tuple([now_ms - age_ms for age_ms in _AGES_MS])
    name, media_type = (BATCH_LINES, _NDJSON) if is_lines else (BATCH_ARRAY, _JSON)
    return Exchange("POST", name, "/transactions/batch", _judge_batch, body, media_type)


def _parsed(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; empty where there is none."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _other_status(expected: int, status: int, body: bytes) -> str:
    """Complain of a status, without the problem's detail: locust groups complaints by their text."""
    code = _parsed(body).get("code")
    return f"expected {expected}, got {status}" + (f" ({code})" if code else "")


def _judge_accepted(status: int, body: bytes) -> str:
    if status != 201:
        return _other_status(201, status, body)
    try:
        uuid.UUID(_parsed(body).get("id"))
    except (AttributeError, TypeError, ValueError):
        return "201 without an id that is a UUID"
    return ""


def _judge_late(status: int, body: bytes) -> str:
    if status != 204:
        return _other_status(204, status, body)
    return "204 with a body" if body else ""


def _judge_broken(status: int, body: bytes) -> str:
    if status != 400:
        return _other_status(400, status, body)
    return "" if _parsed(body).get("code") else "400 without a code"


def _judge_wrong(pointer: str) -> Judge:
    def judge(status: int, body: bytes) -> str:
        if status != 422:
            return _other_status(422, status, body)
        errors = _parsed(body).get("errors")
        named = [error.get("pointer") for error in errors] if isinstance(errors, list) else []
        return "" if named == [pointer] else f"422 that names {named} for {pointer}"

    return judge


def _judge_batch(status: int, body: bytes) -> str:
    if status != 200:
        return _other_status(200, status, body)
    result = _parsed(body)
    counts = {name: result.get(name) for name in ("accepted", "duplicate", "late", "rejected")}
    if counts == {"accepted": BATCH_ITEMS, "duplicate": 0, "late": 0, "rejected": 0}:
        return ""
    return f"sent {BATCH_ITEMS}, but {counts}"


def _judge_health(status: int, body: bytes) -> str:
    if status != 200:
        return _other_status(200, status, body)
    return "" if _parsed(body) == {"status": "ok"} else "200, but another health than ok"


def _judge_stats(status: int, body: bytes) -> str:
    """Hold the answer against itself: what it should count, a client alone cannot know."""
    if status != 200:
        return _other_status(200, status, body)
    statistics = _parsed(body)
    try:
        count, by_currency = statistics["count"], statistics["by_currency"]
        if count != sum(figures["count"] for figures in by_currency.values()):
            return "the count is not the sum of the currencies' counts"
        if not statistics["min"] <= statistics["avg"] <= statistics["max"]:
            return "the average does not lie between min and max"
    except (AttributeError, KeyError, TypeError):
        return "200 without all the statistics"
    return ""


def _judge_stats_of_ten_seconds(status: int, body: bytes) -> str:
    if complaint := _judge_stats(status, body):
        return complaint
    seconds = _parsed(body).get("window_seconds")
    return "" if seconds == 10 else f"statistics of {seconds} seconds instead of 10"


def _judge_stats_in_euro(status: int, body: bytes) -> str:
    if complaint := _judge_stats(status, body):
        return complaint
    others = _parsed(body)["by_currency"].keys() - {"EUR"}
    return f"statistics in EUR with {sorted(others)}" if others else ""


def _look(path: str, judge: Judge) -> Exchange:
    return Exchange("GET", path, path, judge)


_STATS: Final = _look("/stats", _judge_stats)
_STATS_OF_TEN_SECONDS: Final = _look("/stats?window=10s", _judge_stats_of_ten_seconds)
_STATS_IN_EURO: Final = _look("/stats?currency=EUR", _judge_stats_in_euro)
_HEALTH: Final = _look("/health", _judge_health)

# What dashboards ask for, in turn; the whole window most often.
LOOKS: Final = (
    _STATS,
    _STATS_OF_TEN_SECONDS,
    _STATS_IN_EURO,
    _STATS,
    _STATS_OF_TEN_SECONDS,
    _STATS,
    _HEALTH,
)
