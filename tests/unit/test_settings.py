"""Settings: the contract's defaults, and one clear line for whatever is wrong."""

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.core.currency import ISO_4217
from app.environment import read_settings
from app.settings import Authentication, Late, SettingsError
from tests.support.settings import refusal

NAMES = [
    *(
        "HOST",
        "PORT",
        "DATABASE_URL",
        "WINDOW_SECONDS",
        "FUTURE_SKEW_MS",
        "USER_ROWS_MAX",
        "LATE",
        "RETENTION_DAYS",
        "ALLOW_NEGATIVE_AMOUNTS",
    ),
    *("DEFAULT_CURRENCY", "EXTRA_CURRENCIES", "WORKERS", "REDIS_URL", "NODE_ID", "KEEP_ALIVE_SECONDS"),
    *(
        "CONNECTIONS_MAX",
        "TRUSTED_PROXIES",
        "CORS_ORIGINS",
        "AUTH",
        "JWT_SECRET",
        "JWT_JWKS_URL",
        "JWT_ISSUER",
        "JWT_AUDIENCE",
    ),
    *("RATE_LIMIT_PER_SECOND", "RATE_LIMIT_BURST"),
    "LOG_LEVEL",
]

twin = hypothesis_settings(derandomize=False, print_blob=True, deadline=None, max_examples=300)


def accused(environment: dict[str, str]) -> str | None:
    """The variable that a refusal begins with, or None where nothing is refused."""
    try:
        read_settings(environment)
    except SettingsError as error:
        return str(error).partition(": ")[0]
    return None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", "127.0.0.1"),
        ("port", 8000),
        ("database_url", "sqlite:///data/millrace.db"),
        ("window_seconds", 60),
        ("future_skew_ms", 1000),
        ("user_rows_max", 1_000_000),
        ("late", Late.DISCARD),
        ("retention_days", 0),
        ("allow_negative_amounts", False),
        ("default_currency", "USD"),
        ("extra_currencies", "BTC,ETH,USDT,USDC"),
        ("workers", 1),
        ("keep_alive_seconds", 5),
        ("connections_max", 4000),
        ("auth", Authentication.UNSET),
        ("rate_limit_per_second", 0),
        ("origins", []),
        ("proxies", []),
    ],
)
def test_an_empty_environment_gives_the_contracts_defaults(field: str, value: object) -> None:
    assert getattr(read_settings({}), field) == value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("empty", ["", " ", "\t\n"])
def test_an_empty_variable_is_as_if_it_were_unset(name: str, empty: str) -> None:
    assert read_settings({name: empty}) == read_settings({})


def test_variables_of_others_are_none_of_our_business() -> None:
    assert read_settings({"PATH": "/bin", "LANG": "C", "port": "http"}) == read_settings({})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("HOST", "127.0.0.2", "127.0.0.2"),
        ("PORT", "65535", 65_535),
        ("PORT", " 8001\n", 8001),
        ("DATABASE_URL", "memory://", "memory://"),
        ("WINDOW_SECONDS", "1", 1),
        ("WINDOW_SECONDS", "3600", 3600),
        ("FUTURE_SKEW_MS", "0", 0),
        ("FUTURE_SKEW_MS", "4000", 4000),
        ("USER_ROWS_MAX", "0", 0),
        ("USER_ROWS_MAX", "100000000", 100_000_000),
        ("LATE", "discard", Late.DISCARD),
        ("LATE", "keep", Late.KEEP),
        ("RETENTION_DAYS", "0", 0),
        ("RETENTION_DAYS", "36500", 36_500),
        ("ALLOW_NEGATIVE_AMOUNTS", "true", True),
        ("ALLOW_NEGATIVE_AMOUNTS", "false", False),
        ("DEFAULT_CURRENCY", "EUR", "EUR"),
        ("DEFAULT_CURRENCY", "BTC", "BTC"),
        ("EXTRA_CURRENCIES", "DOGE", "DOGE"),
        ("WORKERS", "1", 1),
        ("WORKERS", "64", 64),
        ("KEEP_ALIVE_SECONDS", "30", 30),
        ("CONNECTIONS_MAX", "10", 10),
        ("AUTH", "off", Authentication.OFF),
        ("RATE_LIMIT_PER_SECOND", "100", 100),
        ("TRUSTED_PROXIES", "10.0.0.0/8, ::1", "10.0.0.0/8, ::1"),
        ("CORS_ORIGINS", "https://a.example", "https://a.example"),
        (
            "CORS_ORIGINS",
            "http://[::1]:3000,http://a.example:443",
            "http://[::1]:3000,http://a.example:443",
        ),
    ],
)
def test_a_right_value_is_taken(name: str, text: str, value: object) -> None:
    assert getattr(read_settings({name: text}), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(
            ("PORT", wrong)
            for wrong in ("http", "-1", "65536", "80.5", "8_000", "0x50", "+80", "9" * 30, "\u0668")
        ),
        *(("PORT", wrong) for wrong in ("8e1", "80.0", "8E+1", "1e400", "-0")),
        *(
            ("WINDOW_SECONDS", wrong)
            for wrong in ("0", "3601", "1.5", "-60", "60s", "1m", "true", "null", "nan")
        ),
        *(("FUTURE_SKEW_MS", wrong) for wrong in ("4001", "-1", "0.5", "1s", "inf")),
        *(("USER_ROWS_MAX", wrong) for wrong in ("-1", "100000001", "1e6", "all", "0.5")),
        *(("KEEP_ALIVE_SECONDS", wrong) for wrong in ("0", "-5", "5.5", "five")),
        *(("CONNECTIONS_MAX", wrong) for wrong in ("0", "-1", "1.5", "many", "1000001")),
        *(("RETENTION_DAYS", wrong) for wrong in ("-1", "36501", "0.5", "30d", "forever")),
        *(("WORKERS", wrong) for wrong in ("0", "65", "-1", "auto")),
        *(("ALLOW_NEGATIVE_AMOUNTS", wrong) for wrong in ("maybe", "2", "null")),
        *(("LATE", wrong) for wrong in ("kept", "drop", "null")),
        *(("AUTH", wrong) for wrong in ("jwt", "JWT", "on", "none", "basic")),
        *(("LOG_LEVEL", wrong) for wrong in ("loud", "0", "null")),
        *(("DEFAULT_CURRENCY", wrong) for wrong in ("usd", "US", "DOGE", "HRK", "USD,EUR", "null")),
        *(
            ("EXTRA_CURRENCIES", wrong)
            for wrong in ("btc", "BTC,eth", "BTC;ETH", "B", "BTC\n,ETH", "B-C")
        ),
        *(
            ("DATABASE_URL", wrong)
            for wrong in ("sqlite:///", "sqlite:////", "sqlite://", "sqlite:///data/", "data.db")
        ),
        *(
            ("DATABASE_URL", wrong)
            for wrong in ("postgresql:/x", "postgresql+psycopg://x", "mysql://x", "memory://x", "memory")
        ),
        *(
            ("REDIS_URL", wrong)
            for wrong in (
                "0",
                "off",
                "http://x",
                "redis://",
                "redis://x:y",
                "redis://x/y",
                "redis://x?db=1",
            )
        ),
        *(
            ("NODE_ID", "1"),
            ("RATE_LIMIT_PER_SECOND", "-1"),
            ("RATE_LIMIT_PER_SECOND", "0.5"),
            ("RATE_LIMIT_BURST", "5"),
            ("JWT_SECRET", "hunter2"),
        ),
        *(
            ("JWT_JWKS_URL", "https://id.example/jwks"),
            ("JWT_ISSUER", "id.example"),
            ("JWT_AUDIENCE", "millrace"),
        ),
        *(
            ("TRUSTED_PROXIES", wrong)
            for wrong in (
                "*",
                "10.0.0.1/8",
                "10.0.0.0/33",
                "balancer",
                "10.0.0.1;10.0.0.2",
                "127.0.0.1:80",
            )
        ),
        *(
            ("CORS_ORIGINS", wrong)
            for wrong in (
                "*",
                "null",
                "a.example",
                "https://a.example/",
                "https://A.example",
                "https://*.a.example",
            )
        ),
        *(
            ("CORS_ORIGINS", wrong)
            for wrong in (
                "https://a.example:443",
                "http://a.example:80",
                "ftp://a",
                "https://u@a.example",
            )
        ),
    ],
)
def test_a_wrong_or_unbuilt_value_is_refused_in_one_line_that_begins_with_its_variable(
    name: str, wrong: str
) -> None:
    message = refusal(**{name: wrong})
    assert message.startswith(f"{name}: ")
    assert "\n" not in message


def test_memory_goes_with_one_worker_alone() -> None:
    assert refusal(WORKERS="2", DATABASE_URL="memory://").startswith("WORKERS: must be 1 ")
    assert read_settings({"WORKERS": "1", "DATABASE_URL": "memory://"}).workers == 1


@pytest.mark.parametrize("wrong", ["null", "NULL", "Null"])
def test_null_is_a_word_and_not_an_unset_auth(wrong: str) -> None:
    assert refusal(AUTH=wrong).startswith("AUTH: ")


@pytest.mark.parametrize("name", ["PORT", "AUTH", "LATE", "WORKERS", "DATABASE_URL", "DEFAULT_CURRENCY"])
def test_a_value_that_is_not_utf_8_is_refused_like_any_other_wrong_one(name: str) -> None:
    # As os.environ holds a byte 0xff.
    assert refusal(**{name: "\udcff"}).startswith(f"{name}: ")


def test_a_host_of_two_lines_is_refused_in_one() -> None:
    assert "\n" not in refusal(HOST="localhost\nexample.org")


@twin
@given(st.sampled_from(NAMES), st.text(max_size=12) | st.integers().map(str) | st.floats().map(str))
def test_any_value_is_taken_or_refused_by_the_name_of_a_variable(name: str, text: str) -> None:
    assert accused({name: text}) in {None, *NAMES}


def test_a_node_is_named_and_its_exchange_is_shown_without_a_password() -> None:
    settings = read_settings({"REDIS_URL": "rediss://millrace:hunter2@redis:6380/1", "NODE_ID": "a-1"})
    assert (settings.node, settings.exchange) == ("a-1", "rediss://redis:6380/1")
    assert read_settings({"REDIS_URL": "redis://redis"}).node == socket.gethostname()
    assert read_settings({}).exchange == "none"


@pytest.mark.parametrize("name", ["a b", "ä", "a" * 65, "a/b"])
def test_a_nodes_name_is_plain(name: str) -> None:
    assert refusal(REDIS_URL="redis://redis", NODE_ID=name).startswith("NODE_ID: ")


@pytest.mark.parametrize("name", ["JWT_SECRET", "DATABASE_URL", "REDIS_URL"])
def test_a_refusal_does_not_repeat_what_may_hold_a_password(name: str) -> None:
    assert "hunter2" not in refusal(**{name: "mysql://millrace:hunter2@localhost/millrace"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://millrace:hunter2@db:5432/ledger", "postgresql://millrace@db:5432/ledger"),
        (
            "postgres://millrace:hunter2@one,two/ledger?sslmode=require",
            "postgres://millrace@one,two/ledger",
        ),
        ("postgresql://millrace:hunter2?hunter2:#@db/ledger", "postgresql://millrace@db/ledger"),
        ("postgresql://millrace@/ledger?password=hunter2", "postgresql://millrace@/ledger"),
        ("postgresql://db?password=hunter2", "postgresql://db"),
        ("postgresql:///ledger?host=/run/postgresql&password=hunter2", "postgresql:///ledger"),
        ("postgresql://db/ledger?password=hunter2@hunter2", "postgresql://db/ledger"),
        ("sqlite:///data/millrace.db", "sqlite:///data/millrace.db"),
    ],
)
def test_a_database_is_shown_without_its_password(url: str, shown: str) -> None:
    settings = read_settings({"DATABASE_URL": url})
    assert settings.database == shown
    assert settings.has_database_server is url.startswith("postgres")
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    "place",
    ["hunter2@hunter2@db", "hunter/2@db", "/hunter2@db/ledger", "@/hunter2@db", "@db?password=a@b"],
)
def test_a_password_that_would_be_taken_for_a_host_is_refused(place: str) -> None:
    told = refusal(DATABASE_URL=f"postgresql://millrace:{place}/ledger")
    assert told == "DATABASE_URL: @ and / in a user's name or password must be written as %40 and %2F"


def test_a_transaction_may_carry_the_codes_of_iso_and_the_extra_ones() -> None:
    assert read_settings({"EXTRA_CURRENCIES": "DOGE,XMR"}).currencies == ISO_4217 | {"DOGE", "XMR"}


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///data/millrace.db", Path("data/millrace.db")),
        ("sqlite:////var/lib/millrace.db", Path("/var/lib/millrace.db")),
        ("memory://", None),
    ],
)
def test_four_slashes_make_a_path_absolute_and_memory_has_none(url: str, path: Path | None) -> None:
    assert read_settings({"DATABASE_URL": url}).database_path == path
