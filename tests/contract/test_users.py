"""GET /stats?user_id= as a client sees it: whose figures, how exact, for whom, and when not."""

import random
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from app.settings import Settings, Switch
from tests.support.attacks import NOW_MS as TOKENS_MS
from tests.support.attacks import secret_mint
from tests.support.client import LANES, NOW_MS, WINDOW_MS, assert_problem, protected
from tests.support.issuer import SECRET
from tests.support.thread import Clock, ServiceThread, serve


@pytest.fixture(scope="module", params=LANES)
def running(request: pytest.FixtureRequest) -> Iterator[ServiceThread]:
    settings = Settings(database_url="memory://", fast_lane=request.param, allow_negative_amounts=True)
    with serve(settings, Clock(NOW_MS)) as service:
        yield service


def post(service: ServiceThread, user_id: object, **fields: object) -> None:
    fields = {"amount": 1, "timestamp": NOW_MS, "user_id": user_id, **fields}
    assert service.client.post("/transactions", json=fields).status_code == 201


def count(service: ServiceThread, user_id: str, query: str = "") -> int:
    answer = service.client.get(f"/stats?user_id={quote(user_id, safe='')}{query}")
    assert answer.status_code == 200, answer.text
    return int(answer.json()["count"])


def test_a_user_has_figures_of_their_own(service: ServiceThread) -> None:
    post(service, "a", amount=-5, currency="EUR")
    post(service, "a", amount="92233720368.54775807", currency="JPY", timestamp=NOW_MS - WINDOW_MS)
    post(service, "a", amount="92233720368.54775807", currency="JPY", timestamp=NOW_MS + 1000)
    post(service, "b", amount=7, currency="EUR")
    post(service, None, amount=9)
    answer = service.client.get("/stats?user_id=a")
    assert answer.json()["count"] == 3
    assert '"JPY":{"sum":184467440737.09551614,' in answer.text
    assert list(answer.json()["by_currency"]) == ["EUR", "JPY"]
    assert service.client.get("/stats?user_id=a&currency=EUR&window=1s").json()["sum"] == -5
    assert count(service, "a", "&window=59999ms") == 2
    assert count(service, "nobody") == 0
    assert service.client.get("/stats").json()["count"] == 5


def test_a_users_transaction_leaves_the_window_on_the_millisecond() -> None:
    with serve(Settings(database_url="memory://"), Clock(NOW_MS)) as service:
        post(service, "a", timestamp=NOW_MS)
        for later_ms, counted in ((WINDOW_MS, 1), (WINDOW_MS + 1, 0)):
            service.clock.now_ms = NOW_MS + later_ms
            assert count(service, "a") == counted


@pytest.mark.parametrize(
    "user_id", ["жук", "用户", "\U0001f600", "a b", "a+b", "a&b=c", "%41", "\ufffd", "x" * 128, "é"]
)
def test_an_id_of_any_script_is_found(service: ServiceThread, user_id: str) -> None:
    post(service, user_id)
    assert count(service, user_id) == 1


def test_a_name_that_is_no_text_is_refused_like_any_unknown_one(service: ServiceThread) -> None:
    details = assert_problem(service.client.get("/stats?%FF=7"), 422, "invalid_parameter")
    assert details["errors"][0]["pointer"] == "/?"


def test_an_integer_is_found_by_its_text(service: ServiceThread) -> None:
    post(service, 7)
    assert count(service, "7") == 1


def test_a_deletion_clears_users_too(service: ServiceThread) -> None:
    post(service, "a")
    assert service.client.delete("/transactions").status_code == 204
    assert count(service, "a") == 0


def test_where_none_are_held_the_question_is_refused() -> None:
    with serve(Settings(database_url="memory://", user_rows_max=0), Clock(NOW_MS)) as service:
        post(service, "a")
        details = assert_problem(service.client.get("/stats?user_id=a"), 422, "invalid_parameter")
        assert [error["pointer"] for error in details["errors"]] == ["/user_id"]
        assert service.client.get("/stats").json()["count"] == 1


@pytest.mark.parametrize("lane", LANES)
def test_past_the_bound_users_alone_are_refused_until_what_is_missing_has_left(lane: Switch) -> None:
    settings = Settings(database_url="memory://", user_rows_max=2, fast_lane=lane)
    with serve(settings, Clock(NOW_MS)) as service:
        for user_id in ("a", "b"):
            post(service, user_id, timestamp=NOW_MS - 10)
        assert count(service, "a") == 1
        post(service, "c", timestamp=NOW_MS - 5)
        answer = service.client.get("/stats?user_id=a")
        assert_problem(answer, 503, "too_many_transactions")
        assert answer.headers["retry-after"] == "60"
        assert count(service, "a", "&window=4ms") == 0
        assert service.client.get("/stats").json()["count"] == 3
        service.clock.now_ms += WINDOW_MS - 5
        assert service.client.get("/stats?user_id=a").status_code == 503
        service.clock.now_ms += 1
        assert count(service, "a") == 0


SUBJECTS = {"alice": "stats:read", "bob": "stats:read", "auditor": "stats:read transactions:read_all"}


@pytest.mark.parametrize("lane", LANES)
def test_a_token_shows_its_subjects_figures_and_others_only_with_the_scope(lane: Switch) -> None:
    with serve(protected(lane, jwt_secret=SECRET), Clock(TOKENS_MS)) as service:

        def ask(subject: str, user_id: str) -> httpx.Response:
            token = secret_mint(claims={"sub": subject, "scope": SUBJECTS[subject]})
            # Bare of what a client adds, so that a head that comes again is one for the fast lane.
            return service.client.get(
                f"/stats?user_id={user_id}", headers={"authorization": f"Bearer {token}"}
            )

        token = secret_mint(claims={"sub": "alice"})
        for fields in ({"amount": 3}, {"amount": 4, "user_id": "bob"}):
            answer = service.client.post(
                "/transactions",
                json={"timestamp": TOKENS_MS, **fields},
                headers={"authorization": f"Bearer {token}"},
            )
            assert answer.status_code == 201
        asked = [(subject, user_id) for subject in SUBJECTS for user_id in ("alice", "bob", "ALICE")]
        choose = random.Random(20260102)
        for subject, user_id in choose.choices(asked, k=200):
            told = f"{subject} asks for {user_id}"
            answer = ask(subject, user_id)
            if subject in (user_id, "auditor"):
                assert answer.json()["sum"] == {"alice": 3, "bob": 4, "ALICE": 0}[user_id], told
            else:
                assert_problem(answer, 403, "forbidden")
                assert 'scope="transactions:read_all"' in answer.headers["www-authenticate"], told
