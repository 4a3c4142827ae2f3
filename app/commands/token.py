"""`python -m app token`: a token for trying the service out."""

import os
import time

import click

from app.environment import read_settings
from app.settings import Authentication, SettingsError
from app.web.guard import Permission

_SCOPE = f"{Permission.WRITE} {Permission.STATS}"


@click.command(
    short_help="Print a token for trying things out.",
    epilog="""\b
Settings: AUTH=jwt, JWT_SECRET, JWT_ISSUER, JWT_AUDIENCE.
\b
Example:
  python -m app token --sub alice --scope 'stats:read transactions:read'""",
)
@click.option("--sub", "subject", required=True, help="Who the token speaks for.")
@click.option("--scope", default=_SCOPE, show_default=True, help="What they may do, in words.")
@click.option(
    "--expires-seconds", type=click.IntRange(1), default=3600, show_default=True, help="Until when."
)
def token(subject: str, scope: str, expires_seconds: int) -> int:
    """Print a token signed with JWT_SECRET. Where the issuer has a key set, it makes the tokens."""
    settings = read_settings(os.environ)
    if settings.auth is not Authentication.JWT or not settings.jwt_secret:
        raise SettingsError("AUTH: a token can be made where it is jwt, with a JWT_SECRET")
    for word in scope.split():
        if word not in set(Permission):
            raise click.BadParameter(f"{word!r} is not one of: {', '.join(Permission)}")
    # Here, as no other command needs cryptography at its start.
    import jwt

    from app.core.transaction import USER_ID

    if not USER_ID.fullmatch(subject):
        raise click.BadParameter("--sub must be 1 to 128 characters, and no control characters")
    now_seconds = int(time.time())
    claims = {
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "sub": subject,
        "scope": " ".join(scope.split()),
        "iat": now_seconds,
        "exp": now_seconds + expires_seconds,
    }
    click.echo(jwt.encode(claims, settings.jwt_secret, algorithm="HS256"))
    return 0
