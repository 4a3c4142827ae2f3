"""GET /stats as a client sees it: which figures, of what, how exact, and what of time."""

import pytest

from app.settings import Settings
from tests.support.client import NOW, NOW_MS, WINDOW_MS, assert_problem, post, stats
from tests.support.thread import Clock, ServiceThread, serve

OPEN = Settings(database_url="memory://")


@pytest.fixture(scope="module")
def running(on_each_lane: ServiceThread) -> ServiceThread:
    return on_each_lane


def test_what_was_acknowledged_is_counted(service: ServiceThread) -> None:
    post(service, amount=1.25)
    assert stats(service)["count"] == 1


def test_statistics_are_spelled_as_the_contract_spells_them(service: ServiceThread) -> None:
    for amount in (50, 200, *[93.75] * 8):
        post(service, amount=amount, currency="EUR")
    assert service.client.get("/stats").text == (
        '{"sum":1000.00,"avg":100.00,"max":200.00,"min":50.00,"count":10,'
        f'"window_seconds":60,"resolution_ms":1,"as_of":"{NOW}",'
        '"by_currency":{"EUR":{"sum":1000.00,"avg":100.00,"max":200.00,"min":50.00,"count":10}}}'
    )


def test_nothing_in_the_window_is_all_zeros(service: ServiceThread) -> None:
    assert service.client.get("/stats").text == (
        '{"sum":0.00,"avg":0.00,"max":0.00,"min":0.00,"count":0,'
        f'"window_seconds":60,"resolution_ms":1,"as_of":"{NOW}","by_currency":{{}}}}'
    )


def test_statistics_is_another_name_of_stats(service: ServiceThread) -> None:
    post(service)
    assert service.client.get("/statistics").content == service.client.get("/stats").content


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0.1", "0.10"),
        ("92233720368.54775807", "92233720368.54775807"),
        ("1e-8", "0.00000001"),
        ('"7.5"', "7.50"),
        ("0", "0.00"),
        ("-0.00", "0.00"),
        ("12.30", "12.30"),
    ],
)
def test_amounts_come_out_as_exact_as_they_went_in(
    service: ServiceThread, amount: str, shown: str
) -> None:
    body = f'{{"amount":{amount},"timestamp":{NOW_MS}}}'
    assert service.client.post("/transactions", content=body).status_code == 201
    assert f'"sum":{shown},"avg":{shown},' in service.client.get("/stats").text


def test_the_average_is_rounded_to_eight_digits_away_from_zero_on_a_tie(
    service: ServiceThread,
) -> None:
    for amount in ("0.00000001", "0.00000002"):
        post(service, amount=amount)
    assert '"avg":0.00000002' in service.client.get("/stats").text


def test_overall_figures_mix_currencies_and_by_currency_never_does(service: ServiceThread) -> None:
    post(service, amount=1, currency="EUR")
    post(service, amount=3, currency="JPY")
    post(service, amount=5)
    figures = stats(service)
    assert (figures["sum"], figures["min"], figures["max"], figures["count"]) == (9, 1, 5, 3)
    assert {code: each["sum"] for code, each in figures["by_currency"].items()} == {
        "EUR": 1,
        "JPY": 3,
        "USD": 5,
    }


@pytest.mark.parametrize(
    ("age_ms", "status", "counted"),
    [
        pytest.param(0, 201, 1, id="now"),
        pytest.param(WINDOW_MS, 201, 1, id="exactly as old as the window"),
        pytest.param(WINDOW_MS + 1, 204, 0, id="a millisecond older"),
        pytest.param(10**10, 204, 0, id="months old"),
        pytest.param(-1000, 201, 1, id="as far ahead as is allowed"),
        pytest.param(-1001, 422, 0, id="a millisecond further ahead"),
    ],
)
def test_time_decides_what_is_taken(
    service: ServiceThread, age_ms: int, status: int, counted: int
) -> None:
    answer = post(service, timestamp=NOW_MS - age_ms)
    assert answer.status_code == status
    assert stats(service)["count"] == counted
    if status == 204:
        assert answer.content == b""
    if status == 422:
        details = assert_problem(answer, 422, "timestamp_ahead")
        assert details["errors"][0]["pointer"] == "/timestamp"


def test_a_transaction_leaves_the_window_on_the_millisecond() -> None:
    with serve(OPEN, Clock(NOW_MS)) as service:
        post(service, timestamp=NOW_MS)
        service.clock.now_ms = NOW_MS + WINDOW_MS
        assert stats(service)["count"] == 1
        service.clock.now_ms += 1
        assert stats(service)["count"] == 0


@pytest.mark.parametrize(
    ("window", "seconds", "count"),
    [
        ("250ms", 0.25, 1),
        ("10s", 10, 2),
        ("1m", 60, 3),
        ("30", 30, 2),
        ("10.001s", 10.001, 2),
        ("0.25", 0.25, 1),
        ("1ms", 0.001, 1),
    ],
)
def test_a_part_of_the_window_can_be_asked_for(
    service: ServiceThread, window: str, seconds: float, count: int
) -> None:
    for age_ms in (0, 10_000, 60_000):
        post(service, timestamp=NOW_MS - age_ms)
    figures = stats(service, f"?window={window}")
    assert (figures["window_seconds"], figures["count"]) == (seconds, count)


def test_one_currency_can_be_asked_for(service: ServiceThread) -> None:
    post(service, amount=1, currency="EUR")
    post(service, amount=3, currency="JPY")
    figures = stats(service, "?currency=EUR&window=1s")
    assert figures["sum"] == 1
    assert list(figures["by_currency"]) == ["EUR"]
    assert stats(service, "?currency=CHF")["by_currency"] == {}


@pytest.mark.parametrize(
    "query",
    [
        "window=",
        "window=0",
        "window=0ms",
        "window=61s",
        "window=-1s",
        "window=1d",
        "window=10 s",
        "window=1e1",
        "window=0.0001",
        "window=%D9%A1",
        "window=1s%0A",
        "window=1s&window=2s",
        "currency=eur",
        "currency=",
        "currency=XYZ",
        "windw=10s",
        "user=7",
        "user_id=",
        "user_id=%00",
        "user_id=a%0Ab",
        "user_id=%FF",
        "user_id=%ED%A0%80",
        "user_id=7&user_id=7",
        "user_id=" + "a" * 129,
    ],
)
def test_a_wrong_question_is_refused_and_says_which_part(service: ServiceThread, query: str) -> None:
    details = assert_problem(service.client.get(f"/stats?{query}"), 422, "invalid_parameter")
    assert details["errors"][0]["pointer"] == "/" + query.split("=")[0]


def test_a_refused_transaction_is_not_counted(service: ServiceThread) -> None:
    assert post(service, amount=-1).status_code == 422
    assert stats(service)["count"] == 0


def test_a_pointer_to_a_name_of_the_callers_is_escaped(service: ServiceThread) -> None:
    details = assert_problem(service.client.get("/stats?a/b~=1"), 422, "invalid_parameter")
    assert details["errors"][0]["pointer"] == "/a~1b~0"


def test_deleting_clears_the_statistics(service: ServiceThread) -> None:
    post(service)
    answer = service.client.delete("/transactions")
    assert (answer.status_code, answer.content) == (204, b"")
    assert stats(service)["count"] == 0


def test_negative_amounts_are_taken_where_they_are_allowed() -> None:
    settings = Settings(database_url="memory://", allow_negative_amounts=True)
    with serve(settings, Clock(NOW_MS)) as service:
        assert post(service, amount="-3.50").status_code == 201
        assert post(service, amount="1").status_code == 201
        assert '"sum":-2.50,"avg":-1.25,"max":1.00,"min":-3.50' in service.client.get("/stats").text


def test_a_window_of_an_hour_says_how_coarse_its_edge_is() -> None:
    settings = Settings(database_url="memory://", window_seconds=3600)
    with serve(settings, Clock(NOW_MS)) as service:
        assert stats(service)["resolution_ms"] == 60
        assert post(service, timestamp=NOW_MS - 3_600_000).status_code == 201
        assert stats(service)["count"] == 1
        assert post(service, timestamp=NOW_MS - 3_600_001).status_code == 204
