"""What of the settings is shown to an operator: what differs, and no password."""

from app.environment import read_settings


def test_only_what_differs_is_shown_and_without_passwords() -> None:
    assert read_settings({}).changed == {}
    settings = read_settings(
        {
            "DATABASE_URL": "postgresql://user:hush@db.example/millrace?password=hush",
            "REDIS_URL": "redis://:hush@127.0.0.1/1",
            "NODE_ID": "a",
            "AUTH": "jwt",
            "JWT_JWKS_URL": "https://id.example/keys?code=hush",
            "JWT_ISSUER": "me",
            "JWT_AUDIENCE": "you",
            "FAST_LANE": "off",
            "ALLOW_NEGATIVE_AMOUNTS": "true",
            "PORT": "8000",
        }
    )
    assert settings.changed == {
        "database_url": "postgresql://user@db.example/millrace",
        "redis_url": "redis://127.0.0.1/1",
        "node_id": "a",
        "allow_negative_amounts": True,
        "fast_lane": "off",
        "auth": "jwt",
        "jwt_jwks_url": "https://id.example/keys",
        "jwt_issuer": "me",
        "jwt_audience": "you",
    }
