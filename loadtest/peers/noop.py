"""The least an ASGI application on uvicorn can do with a request: read it, answer a constant.

    python -m loadtest.peers.noop PORT

Server settings and answer headers are those of the service, so that the difference to it is the work
it does; the protocol class is uvicorn's own.
"""

import sys
from typing import Final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

BODY: Final = b'{"id":"019b7d2c-5a3e-7000-8000-a1b2c3d4e5f6"}'

_START: Final = {
    "type": "http.response.start",
    "status": 201,
    "headers": ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))),
}
_BODY: Final = {"type": "http.response.body", "body": BODY}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 201, whatever was asked."""
    while (await receive()).get("more_body"):
        pass
    await send(_START)
    await send(_BODY)


def serve(asgi: ASGIApp) -> None:
    """Serve on the loopback port of the command line, with uvicorn set as the service sets it."""
    uvicorn.run(
        asgi,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_level="error",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=2048,
        timeout_keep_alive=5,
    )


if __name__ == "__main__":
    serve(application)
