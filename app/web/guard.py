"""Who is calling, and may they? Each lane asks the guard before it lets a request do anything."""

from enum import StrEnum
from http import HTTPStatus
from typing import Final, Protocol

import msgspec

from app.web.answers import Code, problem

REALM: Final = 'Bearer realm="millrace"'


class Permission(StrEnum):
    """What a caller may do; the words are those of a token's `scope`."""

    WRITE = "transactions:write"
    READ = "transactions:read"
    READ_ALL = "transactions:read_all"
    DELETE = "transactions:delete"
    STATS = "stats:read"


IMPLIED: Final = {Permission.READ_ALL: Permission.READ}
"""What goes with a permission: whoever may read all may read."""
FORBIDDEN: Final = {
    permission: problem(
        HTTPStatus.FORBIDDEN,
        Code.FORBIDDEN,
        f"The token lacks the scope {permission.value}",
        headers=(
            (
                b"www-authenticate",
                f'{REALM}, error="insufficient_scope", scope="{permission.value}"'.encode(),
            ),
        ),
    )
    for permission in Permission
}
"""What callers are answered who lack a permission."""


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Who sent a request. Without tokens there is one caller, who has no subject and may do anything."""

    subject: str | None
    permissions: frozenset[Permission]

    def may_see(self, user_id: str) -> bool:
        """Whether they may learn what is this user's."""
        return user_id == self.subject or Permission.READ_ALL in self.permissions


ANYONE: Final = Caller(None, frozenset(Permission))


class Guard(Protocol):
    """Recognises callers by the value of their `Authorization` header, None where there is none.

    Several such headers are one value, joined by commas, as HTTP joins any; it is no token's.
    """

    everyone: Caller | None
    """The one caller there is, where nobody is asked who they are."""

    def recognise(self, authorization: bytes | None, permission: Permission) -> Caller | None:
        """The caller, where that can be told at once and they may; None leaves it to `admit`."""

    async def admit(self, authorization: bytes | None, permission: Permission) -> Caller:
        """The caller. Raises Problem where there is no valid token, or it lacks the permission."""


class OpenDoor:
    """Lets in whoever can connect."""

    everyone: Caller | None = ANYONE

    def recognise(self, authorization: bytes | None, permission: Permission) -> Caller | None:
        """Anyone."""
        return ANYONE

    async def admit(self, authorization: bytes | None, permission: Permission) -> Caller:
        """Anyone."""
        return ANYONE
