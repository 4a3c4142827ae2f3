"""A hundred thousand tenths, over a real connection to a real process."""

import socket
import time
from urllib.parse import urlsplit

from tests.support.process import WAIT_SECONDS, ServiceProcess

TENTHS = 100_000
PIPELINED = 500


def test_a_hundred_thousand_tenths_are_exactly_ten_thousand() -> None:
    with ServiceProcess({"WINDOW_SECONDS": "600"}) as service:
        address = urlsplit(service.serving())
        body = b'{"amount":0.1,"timestamp":%d}' % (time.time_ns() // 1_000_000)
        post = b"POST /transactions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        with socket.create_connection((address.hostname, address.port), WAIT_SECONDS) as connection:
            answers = connection.makefile("rb")
            for _ in range(TENTHS // PIPELINED):
                connection.sendall(post * PIPELINED)
                for _ in range(PIPELINED):
                    assert answers.readline() == b"HTTP/1.1 201 Created\r\n"
                    while answers.readline() != b"\r\n":
                        pass
                    answers.read(45)
            connection.sendall(b"GET /stats HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            raw = answers.read()
    assert b'{"sum":10000.00,"avg":0.10,"max":0.10,"min":0.10,"count":100000,' in raw
