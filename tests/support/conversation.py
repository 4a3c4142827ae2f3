"""Requests that follow one another on a connection, and the status that each is to have."""

import random

from tests.support.wire import WHOLE, get, post

TURNS_MAX = 5000
Request = tuple[bytes, int]
UPGRADE = (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABk")

CHUNKED = (
    b"POST /transactions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n"
) % (WHOLE[:5], len(WHOLE) - 5, WHOLE[5:])

ORDINARY: list[Request] = [
    (post(WHOLE), 201),
    (post(WHOLE, b"Content-Type: application/json", b"Connection: keep-alive"), 201),
    (post(b'{"amount":1,"timestamp":1}'), 204),
    (post(b"{"), 400),
    (post(b""), 400),
    (post(b'{"amount":"x"}'), 422),
    (post(WHOLE, b"content-type: text/plain"), 415),
    (post(WHOLE, b"expect: 100-continue"), 201),
    (CHUNKED, 201),
    (post(WHOLE, *UPGRADE), 201),
    (CHUNKED.replace(b"host: x", b"\r\n".join([b"host: x", *UPGRADE])), 201),
    (get(b"/stats").replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"), 200),
    (get(b"/stats"), 200),
    (get(b"/stats?window=1s"), 200),
    (get(b"/stats?window=never"), 422),
    (get(b"/health"), 200),
    (get(b"/readyz"), 200),
    (get(b"/nope"), 404),
    (b"\r\n" + get(b"/livez"), 200),
]

CLOSING: list[Request] = [
    (post(WHOLE, b"connection: close"), 201),
    (post(WHOLE).replace(b"HTTP/1.1", b"HTTP/1.0"), 201),
    (b"GET /stats HTTP/2.0\r\nhost: x\r\n\r\n", 400),
    (b"what is this\r\n\r\n", 400),
    (post(b"x", b"content-length: 2"), 400),
    (b"GET /stats HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", 400),
    (CHUNKED.replace(b"\r\n5\r\n", b"\r\nz\r\n"), 400),
    (post(b" " * 65_537), 413),
]


def pieces(choose: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(choose.randrange(len(data) + 1) for _ in range(choose.choice((0, 1, 3, 12))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
