"""The benchmark's pure parts: what it reads, how it compares, what it shows."""

import pytest

from loadtest.benchmark.__main__ import turn_order
from loadtest.benchmark.arms import ARMS, TARGETS, Arm, Target, chosen
from loadtest.benchmark.bench import Turn
from loadtest.benchmark.load import (
    Get,
    LoadError,
    Measured,
    Post,
    read_redis_benchmark,
    read_wrk,
    wrk,
)
from loadtest.benchmark.report import (
    Judgement,
    Spread,
    arm_table,
    client_ceiling,
    judge,
    others_share,
    ratio_table,
    summarize,
)

WRK = """Running 4s test @ http://127.0.0.1:8000
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   820.11us  310.52us   9.01ms   91.23%
    Req/Sec    81.31k     3.10k   86.20k    75.00%
  Latency Distribution
     50%  742.00us
     75%    0.90ms
     90%    1.05ms
     99%    2.25ms
  324711 requests in 4.10s, 51.10MB read
Requests/sec:  79197.80
Transfer/sec:     12.46MB
"""

REDIS_BENCHMARK = """WARNING: Could not fetch server CONFIG
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"INCR","83194.67","0.413","0.128","0.375","0.591","1.671","4.247"
"""

ARM = Arm("ours", "what it is", None, Get("/stats"))
TARGET = Target("ours ÷ theirs", "ours", "theirs", 0.7, 0.8)


def turn(per_second: float, client_share: float | None = None) -> Turn:
    return Turn(per_second, 500.0, 1500.0, 1, client_share, 0.99, 0.1)


def test_the_figures_of_wrk_are_read_in_microseconds() -> None:
    assert read_wrk(WRK) == Measured(324711, 79197.80, 742.0, 2250.0)


def test_a_latency_of_seconds_is_read_too() -> None:
    slow = read_wrk(WRK.replace("2.25ms\n", "1.50s \n"))
    assert slow.p99_microseconds == 1_500_000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (WRK + "  Non-2xx or 3xx responses: 17\n", "17 answers were not 2xx"),
        (WRK + "  Socket errors: connect 0, read 3, write 0, timeout 1\n", "read 3"),
        (WRK.replace("324711 requests", "0 requests"), "no request was answered"),
        ("unable to connect to 127.0.0.1:1 Connection refused\n", "Connection refused"),
        ("", "nothing at all"),
    ],
)
def test_a_run_of_wrk_that_went_wrong_is_no_measurement(text: str, reason: str) -> None:
    with pytest.raises(LoadError, match=reason):
        read_wrk(text)


def test_the_figures_of_redis_benchmark_are_read_in_microseconds() -> None:
    assert read_redis_benchmark(REDIS_BENCHMARK, 1000) == Measured(1000, 83194.67, 375.0, 1671.0)


@pytest.mark.parametrize(
    "text",
    ["", "Could not connect to Redis at 127.0.0.1:1: Connection refused\n", '"INCR","83194.67"\n'],
)
def test_a_redis_benchmark_without_figures_is_no_measurement(text: str) -> None:
    with pytest.raises(LoadError):
        read_redis_benchmark(text, 1000)


def test_wrk_is_told_what_to_post_and_since_when() -> None:
    command = wrk(8000, Post("/transactions/batch", 1000), 4, 1_767_323_045_678)
    assert command[command.index("--") + 1 :][:2] == ["/transactions/batch", "1767323045678"]
    assert command[-1] == "1000"
    assert command[command.index("--connections") + 1] == "8"


def test_a_get_needs_no_script() -> None:
    command = wrk(8000, Get("/stats"), 4, 0)
    assert command[-1] == "http://127.0.0.1:8000/stats"
    assert "--script" not in command


def test_every_target_is_between_arms_that_exist_and_count_the_same_way() -> None:
    names = {arm.name for arm in ARMS}
    assert len(names) == len(ARMS)
    assert all({target.arm, target.over} <= names for target in TARGETS)
    assert all(target.reach <= target.stretch for target in TARGETS)


def test_a_durable_arm_brings_the_figure_of_its_disk_along() -> None:
    assert [arm.name for arm in chosen(["sqlite"])] == ["sqlite", "fdatasync"]
    assert [arm.name for arm in chosen(["go", "memory"])] == ["memory", "go"]
    assert chosen([]) == list(ARMS)


def test_each_round_is_the_reverse_of_the_one_before_and_every_pair_begins_later() -> None:
    orders = [turn_order(["a", "b", "c"], number) for number in range(4)]
    assert ["".join(order) for order in orders] == ["abc", "cba", "bca", "acb"]


def test_an_arm_is_shown_by_the_median_of_its_rounds() -> None:
    rounds = [{"ours": turn(number, 0.5)} for number in (90_000, 70_000, 82_500)]
    figures = summarize(ARM, rounds).figures
    assert figures is not None
    assert figures.per_second == Spread(82_500, 70_000, 90_000)
    assert figures.client_share == 0.5


def test_a_ratio_is_taken_within_each_round_before_the_median() -> None:
    # Half as fast in each round; the medians alone would say something else.
    rounds = [
        {"ours": turn(50), "theirs": turn(100)},
        {"ours": turn(10), "theirs": turn(20)},
        {"ours": turn(80)},
        {"theirs": turn(70)},
    ]
    ratio = judge(TARGET, rounds)
    assert ratio.found == Spread(0.5, 0.5, 0.5)
    assert ratio.judgement is Judgement.BELOW


@pytest.mark.parametrize(
    ("ours", "judgement"),
    [(69, Judgement.BELOW), (70, Judgement.REACHED), (80, Judgement.STRETCHED)],
)
def test_a_target_is_reached_at_its_figure(ours: float, judgement: Judgement) -> None:
    assert judge(TARGET, [{"ours": turn(ours), "theirs": turn(100)}]).judgement is judgement


def test_a_ratio_without_both_of_its_arms_is_not_measured() -> None:
    ratio = judge(TARGET, [{"ours": turn(100)}])
    assert ratio.judgement is Judgement.UNKNOWN
    assert ratio_table([ratio]) == [
        "ratio          median  min  max  reach  stretch",
        "ours ÷ theirs       -    -    -   0.70     0.80  not measured",
    ]


def test_the_client_s_ceiling_is_its_rate_at_all_of_its_core() -> None:
    rounds = [{"nginx": turn(100_000, 0.8)}, {"nginx": turn(60_000, 0.5)}]
    assert client_ceiling("nginx", rounds) == 122_500
    assert client_ceiling("nginx", rounds, 1000) == 122.5
    assert client_ceiling("nginx", []) is None


def test_what_others_took_is_the_middle_of_all_turns_that_have_a_server() -> None:
    disk = Turn(300.0, 2000.0, 9000.0, 300)
    assert others_share([{"ours": turn(1), "disk": disk}, {"ours": turn(2)}]) == 0.1
    assert others_share([{"disk": disk}]) is None


def test_the_table_has_one_line_an_arm_and_a_reason_where_figures_are_missing() -> None:
    missing = Arm("batches", "1000 at a time", None, Post(items=1000))
    table = arm_table(
        [
            summarize(ARM, [{"ours": turn(81_234.5, 0.5)}]),
            summarize(missing, [], "skipped: this version has no batches, and will have them later on"),
        ]
    )
    assert table[:2] == [
        "arm                      median            min     max     p50      p99  client  server",
        "ours     what it is      81 234  req/s  81 234  81 234  500 µs  1.50 ms    50 %    99 %",
    ]
    assert table[2] == (
        "batches  1000 at a time  skipped: this version has no batches, and will have them later on"
    )


def test_a_rate_that_the_client_limits_is_said_to_be_one() -> None:
    table = arm_table([summarize(ARM, [{"ours": turn(81_234.5, 0.95)}])])
    assert table[-1].startswith("ours: the client is at its limit")
