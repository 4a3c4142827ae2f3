"""Fetching a key set from servers that are slow, huge, broken, or not who they say they are."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from app.web.fetch import Fetcher, FetchFailed
from tests.support.issuer import ec_key

Write = Callable[[bytes], Awaitable[None]]
Serve = Callable[[bytes, Write], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\n"


def fetch(serve: Serve, timeout_seconds: float = 30.0, tls: ssl.SSLContext | None = None) -> bytes:
    """What the fetcher makes of a server that does this with a request."""

    async def main() -> bytes:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async def write(data: bytes) -> None:
                writer.write(data)
                await writer.drain()

            try:
                await serve(await reader.readuntil(b"\r\n\r\n"), write)
            except (OSError, asyncio.IncompleteReadError):
                pass  # The fetcher has heard enough.
            finally:
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
        scheme, port = "https" if tls else "http", server.sockets[0].getsockname()[1]
        async with server:
            return await Fetcher(f"{scheme}://127.0.0.1:{port}/keys?v=1", timeout_seconds)()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def answering(*pieces: bytes) -> Serve:
    async def serve(_: bytes, write: Write) -> None:
        for piece in pieces:
            await write(piece)
            await asyncio.sleep(0)

    return serve


def test_the_request_is_a_plain_one() -> None:
    requests = []

    async def serve(request: bytes, write: Write) -> None:
        requests.append(request)
        await write(OK + b"content-length: 2\r\n\r\n{}")

    assert fetch(serve) == b"{}"
    assert requests[0].startswith(b"GET /keys?v=1 HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"connection: close\r\n" in requests[0]


@pytest.mark.parametrize(
    "pieces",
    [
        (OK + b"content-length: 8\r\n\r\n", b'{"a"', b":12}"),
        (OK + b"transfer-encoding: chunked\r\n\r\n4\r\n", b'{"a"\r\n4\r\n', b":12}\r\n0\r\n\r\n"),
        (OK + b"connection: close\r\n\r\n", b'{"a"', b":12}"),
        (b"HTTP/1.0 200 OK\r\n\r\n", b'{"a":12}'),
        (*[bytes([byte]) for byte in OK + b"content-length: 8\r\n\r\n"], b'{"a":12}'),
    ],
    ids=["length", "chunks", "until the end", "HTTP/1.0", "byte by byte"],
)
def test_an_answer_is_read_however_it_is_framed(pieces: tuple[bytes, ...]) -> None:
    assert fetch(answering(*pieces)) == b'{"a":12}'


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"what is this\r\n\r\n",),
        (OK + b"content-length: 8\r\ncontent-length: 9\r\n\r\n",),
        (b"HTTP/1.1 301 Moved\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n",),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n{}",),
        (OK + b"content-length: 99999999\r\n\r\n", *[b" " * 65_536] * 100),
        (OK, *[b"x: " + b"y" * 65_000 + b"\r\n"] * 100),
    ],
    ids=["nothing", "no HTTP", "two lengths", "moved", "not there", "upgrade", "huge", "huge headers"],
)
def test_an_answer_that_is_none_is_a_failure_in_one_line(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(FetchFailed) as raised:
        fetch(answering(*pieces))
    assert str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_server_that_says_nothing_is_given_up() -> None:
    async def serve(_: bytes, write: Write) -> None:
        await write(OK)
        await asyncio.Event().wait()

    with pytest.raises(FetchFailed, match="no answer within"):
        fetch(serve, timeout_seconds=0.05)


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("url", ["http://127.0.0.1:1/keys", "http://a..b/keys"])
def test_nobody_there_is_a_failure_too(
    url: str, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner, pytest.raises(FetchFailed):
        runner.run(Fetcher(url)())


@pytest.fixture
def identity(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of 127.0.0.1 that is its own authority, and a server's side of it."""
    key, name = ec_key("tls"), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    start = datetime.datetime(2020, 1, 1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, start, start.replace(year=2120))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = tmp_path / "key.pem"
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, secret)
    return path, context


def test_a_server_is_believed_when_its_authority_is(
    identity: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = identity
    serve = answering(OK + b"content-length: 2\r\n\r\n{}")
    with pytest.raises(FetchFailed, match=r"(?i)certificate"):
        fetch(serve, tls=context)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    assert fetch(serve, tls=context) == b"{}"
