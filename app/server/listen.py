"""Takes the address a service listens on."""

import errno
import socket
from typing import Final

BACKLOG: Final = 2048


def listen(host: str, port: int, sockets: int = 1) -> list[socket.socket]:
    """Take the address before anything else, so that one that is in use stops the start at once.

    Several sockets share it, and the kernel spreads connections over them. Raises OSError.
    """
    if sockets == 1:
        return [_listen(host, port)]
    if port:
        # Whoever shares an address lets others of the same user share it, too: a second service would
        # be let in. That nobody has it now is found out by one who does not share.
        _listen(host, port).close()
    listeners: list[socket.socket] = []
    try:
        for _ in range(sockets):
            listener = _listen(host, port, is_shared=True)
            listeners.append(listener)
            port = listener.getsockname()[1]
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _listen(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        # Without this another process may still bind the same address and be the first to listen.
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    except (UnicodeError, TypeError):
        # It is not even looked up.
        listener.close()
        raise OSError(errno.EINVAL, "not the name of a host") from None
    return listener
