"""Requests that are nearly right: in their bytes, or in what their bodies say."""

import random

from app.web.body import BODY_BYTES_MAX
from tests.support.conversation import CLOSING, ORDINARY
from tests.support.wire import NOW_MS, WHOLE, get, post

ENTRY = b'{"user_id":"u","amount":1,"metadata":{"name":"\xc3\xa9"},"status":"pending"}'
BATCH = b"[%b,%b,7]" % (WHOLE, WHOLE)

SEEDS = [
    *(raw for raw, _ in ORDINARY + CLOSING),
    post(BATCH).replace(b"/transactions", b"/transactions/batch?ids=true"),
    post(WHOLE + b"\n" + WHOLE, b"content-type: application/x-ndjson").replace(b"ns ", b"ns/batch "),
    get(b"/openapi.json").replace(b"host", b'if-none-match: "x"\r\nhost'),
    get(b"/transactions").replace(b"GET", b"DELETE"),
    get(b"/stats?window=10s&currency=EUR"),
    get(b"/api/v1/transactions?user_id=u&page=1&page_size=2&status=pending&min_amount=1e0"),
    get(b"/transactions?limit=1&search_query=%C3%A9%22&start_date=2026-01-02&location=a&cursor=abc_-"),
    get(b"/transactions/019b7c8e-0f4e-7000-8000-5f1c3a2b4d6e"),
    post(ENTRY).replace(b"/transactions", b"/api/v1/transactions"),
]

TOKENS = [
    *(
        b"\r\n",
        b"\r",
        b"\n",
        b"\r\n\r\n",
        b"\x00",
        b"\xff",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"%",
        b"?",
        b"#",
    ),
    *(
        b"GET ",
        b"POST ",
        b"PUT ",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/9.9",
    ),
    *(
        b"chunked",
        b"transfer-encoding: chunked\r\n",
        b"transfer-encoding: x\r\n",
        b"0\r\n\r\n",
        b"fffffffff\r\n",
    ),
    *(b"content-length: 0\r\n", b"content-length: 5\r\n", b"content-length: " + b"9" * 30 + b"\r\n"),
    *(b"expect: 100-continue\r\n", b"connection: close\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n"),
    *(
        b"content-type: application/x-ndjson\r\n",
        b"content-encoding: gzip\r\n",
        b"authorization: Bearer x\r\n",
    ),
    *(b"idempotency-key: x\r\n", b"x-request-id: y\r\n", b"a" * 5000 + b": 1\r\n", b"a: 1\r\n" * 150),
    *(b"{", b"}", b"[", b"]", b'"', b"\\ud800", b"NaN", b"1e999999999", b"-", b"[" * 3000, b"9" * 400),
]

LITERALS = [
    *(
        b"1",
        b"0.1",
        b"-1",
        b"-0",
        b"1e2",
        b"1e-9",
        b"1e999999999",
        b"1E-999999999",
        b"92233720368.54775807",
    ),
    *(
        b"92233720368.54775808",
        b"1e308",
        b"9" * 5000,
        b"0." + b"1" * 5000,
        b"01",
        b".5",
        b"5.",
        b"+5",
        b"0x1",
    ),
    *(
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"null",
        b"true",
        b"{}",
        b"[]",
        b"[" * 3000,
        b'{"a":' * 3000,
        b"",
    ),
    *(
        b'"1"',
        b'"NaN"',
        b'"sNaN"',
        b'"Infinity"',
        b'"1_0"',
        b'" 1"',
        b'"\xd9\xa1"',
        b'"\\u0661"',
        b'"1e5"',
    ),
    *(
        b'""',
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\\u0000"',
        b'"\x00"',
        b'"\n"',
    ),
    *(
        b'"EUR"',
        b'"eur"',
        b'"XXXX"',
        b'"' + b"x" * 128 + b'"',
        b'"' + b"x" * 129 + b'"',
        b"1" * 128,
        b'"\\"',
    ),
    *(
        b'"card"',
        b'"P2P"',
        b'"pending"',
        b'{"card_last_four":"1"}',
        b'{"a":"\\u0000"}',
        b'{"\xc3\xa9":[{}]}',
    ),
    *(b"%d" % NOW_MS, b"%d.5" % NOW_MS, b"%d" % (NOW_MS // 1000), b"%d.678" % (NOW_MS // 1000), b"2e10"),
    *(b"20000000001", b"-62135596800000", b"253402300799999", b"253402300800000", b"-1e-400"),
    *(
        b'"2026-01-02T03:04:05.678Z"',
        b'"2026-01-02"',
        b'"20260102T030405Z"',
        b'"2026-01-02 03:04:05,6+23:59"',
    ),
    *(b'"0000-01-01"', b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59-23:59"', b'"2026-02-30"'),
    *(
        b'"2026-01-02T03:04:60Z"',
        b'"20260102"',
        b'"2026-01-02T03:04:05.' + b"6" * 5000 + b'Z"',
        b'"now"',
    ),
]

FIELDS = (
    *(b"metadata", b"transaction_type", b"product", b"status"),
    b"amount",
    b"timestamp",
    b"currency",
    b"user_id",
    b"idempotency_key",
    b"x",
    b"\\u0061mount",
)


def mutated(choose: random.Random, raw: bytes) -> bytes:
    """The bytes with a few things wrong with them, or bytes that were never right."""
    if choose.random() < 0.05:
        return choose.randbytes(choose.randrange(1, 400))
    for _ in range(choose.choice((1, 1, 2, 3, 6))):
        start = choose.randrange(len(raw) + 1)
        end = min(start + choose.choice((0, 1, 2, 5, 20, 100)), len(raw))
        match choose.randrange(7):
            case 0:
                raw = raw[:start] + choose.randbytes(end - start) + raw[end:]
            case 1:
                raw = raw[:start] + raw[end:]
            case 2:
                raw = raw[:end] + raw[start:]
            case 3 | 4:
                raw = raw[:start] + choose.choice(TOKENS) + raw[end:]
            case 5:
                other = choose.choice(SEEDS)
                raw = raw[:start] + other[choose.randrange(len(other)) :]
            case 6:
                raw = raw[:start] if choose.random() < 0.3 else raw.replace(b"\r\n", b"\n", 1)
    return raw


def item(choose: random.Random) -> bytes:
    """A transaction, nearly."""
    fields = {b"amount": b"1", b"timestamp": b"%d" % NOW_MS}
    for _ in range(choose.choice((0, 1, 1, 2, 3))):
        fields[choose.choice(FIELDS)] = choose.choice(LITERALS)
    members = [b'"%b":%b' % field for field in fields.items()]
    members += choose.choices(members, k=choose.choice((0, 0, 0, 1)))
    return b"{%b}" % b",".join(members)


def transaction(choose: random.Random) -> bytes:
    """A whole request of any body, rightly framed."""
    form, headers = choose.randrange(4), list[bytes]()
    if form < 2:
        body, line = item(choose), choose.choice((b"/transactions ", b"/api/v1/transactions "))
    else:
        items = [item(choose) for _ in range(choose.randrange(6))]
        line = b"/transactions/batch?%b " % choose.choice((b"", b"ids=true", b"atomic=true"))
        if form == 2:
            body = b"[%b]" % b",".join(items)
        else:
            body, headers = b"\n".join(items), [b"content-type: application/x-ndjson"]
    if choose.random() < 0.3:
        body = mutated(choose, body)
    body = body[:BODY_BYTES_MAX]
    if choose.random() < 0.2:
        headers.append(b"idempotency-key: %d" % choose.randrange(20))
    return post(body, *headers).replace(b"/transactions ", line, 1)
