"""Clients of what is on loopback, where nothing is encrypted."""

import ssl

import httpx

_WAIT_SECONDS = 30.0

# By itself each client would read the certificates of all the world: 20 ms, and nothing here has one.
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def plain_client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=_WAIT_SECONDS, verify=_NO_CERTIFICATES)
