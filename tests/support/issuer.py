"""Issuers of tokens: keys, tokens that are right or wrong in any detail, and a server of key sets."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Collection, Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "https://id.example"
AUDIENCE = "millrace"
SECRET = "correct horse battery staple, and then some"
EVERYTHING = "transactions:write transactions:read transactions:delete stats:read"

Json = Mapping[str, Any]
Sign = Callable[[bytes], bytes]


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, length: int) -> str:
    return encode(value.to_bytes(length))


@cache
def _rsa_key(name: str, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key pair; the same name is the same pair."""
    return _rsa_key(name, bits)


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def hmac_signer(secret: bytes = SECRET.encode(), digest: str = "sha256") -> Sign:
    return lambda data: hmac.new(secret, data, getattr(hashlib, digest)).digest()


def rsa_signer(name: str, bits: int = 2048) -> Sign:
    return lambda data: rsa_key(name, bits).sign(data, padding.PKCS1v15(), hashes.SHA256())


def pss_signer(name: str) -> Sign:
    salted = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    return lambda data: rsa_key(name).sign(data, salted, hashes.SHA256())


def ec_signer(name: str) -> Sign:
    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(ec_key(name).sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)

    return sign


def rsa_member(name: str, bits: int = 2048, **members: object) -> dict[str, Any]:
    """A key set's member. Its `kid` is the name."""
    numbers = rsa_key(name, bits).public_key().public_numbers()
    public = {"kty": "RSA", "n": number(numbers.n, bits // 8), "e": number(numbers.e, 3)}
    return {"kid": name, **public, **members}


def ec_member(name: str, **members: object) -> dict[str, Any]:
    numbers = ec_key(name).public_key().public_numbers()
    public = {"kty": "EC", "crv": "P-256", "x": number(numbers.x, 32), "y": number(numbers.y, 32)}
    return {"kid": name, **public, **members}


class Mint:
    """Makes tokens for a moment: valid for an hour, unless told otherwise."""

    def __init__(self, header: Json, sign: Sign, now_ms: int) -> None:
        self._header = header
        self._sign = sign
        self._now_seconds = now_ms // 1000

    def __call__(
        self,
        *,
        header: Json | bytes | None = None,
        claims: Json | bytes | None = None,
        without: Collection[str] = (),
        sign: Sign | None = None,
    ) -> str:
        """A token of these members beside the usual ones, or of these very bytes."""
        usual = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "alice",
            "exp": self._now_seconds + 3600,
            "scope": EVERYTHING,
        }
        parts = [
            part if isinstance(part, bytes) else _json({**default, **(part or {})}, without)
            for default, part in (({"typ": "JWT", **self._header}, header), (usual, claims))
        ]
        signed = ".".join(map(encode, parts))
        return f"{signed}.{encode((sign or self._sign)(signed.encode()))}"


def _json(members: Json, without: Collection[str]) -> bytes:
    return json.dumps({name: members[name] for name in members if name not in without}).encode()


class KeySetServer:
    """Serves a key set on loopback, counts how often, and can go away."""

    def __init__(self, *members: Json) -> None:
        self.fetches = 0
        self.paths: list[str] = []
        self.publish(*members)
        self._port = 0
        self.come()

    def publish(self, *members: Json) -> None:
        """Serve a key set of these members from now on."""
        self.answer(json.dumps({"keys": members}).encode())

    def answer(self, body: bytes, status: int = 200, headers: Json | None = None) -> None:
        """Answer so from now on."""
        self._answer = status, {"content-length": str(len(body)), **(headers or {})}, body

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/keys?v=1"

    def come(self) -> None:
        """Listen, on the same port as before."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                issuer.paths.append(self.path)
                status, headers, body = issuer._answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def leave(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
