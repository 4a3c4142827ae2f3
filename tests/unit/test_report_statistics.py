"""The statistics of the report: known values, and naive twins."""

import math
import random
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.report.statistics import (
    SIGNIFICANCE,
    Interval,
    bootstrap,
    equivalence,
    percentile,
    student_t_quantile,
    student_t_tail,
    theil_sen,
)

latencies = st.floats(0.1, 1e9)
coordinates = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
ratios = st.lists(st.floats(0.5, 2.0), min_size=2, max_size=12)


class TestPercentile:
    @pytest.mark.parametrize(
        ("per_mille", "expected"), [(1, 1), (500, 500), (501, 501), (990, 990), (999, 999), (1000, 1000)]
    )
    def test_of_a_thousand_values_each_is_its_own_thousandth(
        self, per_mille: int, expected: int
    ) -> None:
        assert percentile(range(1, 1001), per_mille) == expected

    def test_is_always_a_value_that_was_measured(self) -> None:
        assert percentile([1, 2, 3, 100], 500) == 2
        assert percentile([1, 2, 3, 100], 510) == 3
        assert percentile([7], 1) == percentile([7], 1000) == 7

    def test_of_nothing_there_is_none(self) -> None:
        with pytest.raises(ValueError, match="of nothing"):
            percentile([], 500)

    @given(st.lists(latencies, min_size=1), st.integers(1, 1000))
    def test_is_the_least_value_that_so_many_do_not_exceed(
        self, values: list[float], per_mille: int
    ) -> None:
        enough = [
            candidate
            for candidate in values
            if 1000 * sum(value <= candidate for value in values) >= per_mille * len(values)
        ]
        assert percentile(sorted(values), per_mille) == min(enough)


class TestBootstrap:
    def test_of_one_round_there_is_nothing_to_draw(self) -> None:
        assert bootstrap([3.0], statistics.median, random.Random(1)) == Interval(3.0, 3.0, 3.0)

    def test_of_two_rounds_the_mean_spans_both(self) -> None:
        # Both draws of either round: a quarter of all, far more than 2.5 % at each end.
        assert bootstrap([1.0, 3.0], statistics.fmean, random.Random(1)) == Interval(2.0, 1.0, 3.0)

    def test_the_same_seed_draws_the_same(self) -> None:
        rounds = [5.0, 1.0, 4.0, 2.0, 9.0]
        drawn = [bootstrap(rounds, statistics.fmean, random.Random(7)) for _ in range(2)]
        assert drawn[0] == drawn[1]

    def test_covers_the_true_mean_about_as_often_as_it_says(self) -> None:
        choose = random.Random(20_260_102)
        covered = 0
        for _ in range(200):
            found = bootstrap(
                [choose.gauss(10, 2) for _ in range(30)], statistics.fmean, choose, resamples=300
            )
            covered += found.low <= 10 <= found.high
        assert 176 <= covered <= 200

    @settings(max_examples=50, deadline=None)
    @given(st.lists(latencies, min_size=1, max_size=8), st.integers())
    def test_is_ordered_and_within_the_rounds(self, rounds: list[float], seed: int) -> None:
        found = bootstrap(rounds, statistics.median, random.Random(seed), resamples=100)
        assert found.value == statistics.median(rounds)
        assert min(rounds) <= found.low <= found.high <= max(rounds)


def naive_theil_sen(points: Sequence[tuple[float, float]]) -> float:
    slopes = sorted((y2 - y1) / (x2 - x1) for x1, y1 in points for x2, y2 in points if x1 < x2)
    middle = len(slopes) // 2
    return slopes[middle] if len(slopes) % 2 else (slopes[middle - 1] + slopes[middle]) / 2


class TestTheilSen:
    def test_of_a_line_is_its_slope(self) -> None:
        assert theil_sen([(x, 3 * x - 7) for x in range(10)]) == 3

    def test_does_not_heed_an_outlier(self) -> None:
        points: list[tuple[float, float]] = [(x, 2 * x) for x in range(10)]
        points[4] = 4, 10_000
        assert theil_sen(points) == 2

    def test_points_at_one_x_have_no_slope_among_them(self) -> None:
        assert theil_sen([(1, 5), (1, 900), (2, 6), (2, 901)]) == 1
        with pytest.raises(ValueError, match="two different x"):
            theil_sen([(1, 2), (1, 3)])

    @given(st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=15))
    def test_is_that_of_its_naive_twin(self, points: list[tuple[float, float]]) -> None:
        if len({x for x, _ in points}) > 1:
            assert theil_sen(points) == pytest.approx(naive_theil_sen(points))

    @given(
        st.lists(st.tuples(st.integers(0, 9), st.integers(-99, 99)), min_size=2, max_size=15),
        st.integers(-9, 9),
    )
    def test_a_line_added_is_a_slope_added(self, points: list[tuple[int, int]], slope: int) -> None:
        if len({x for x, _ in points}) > 1:
            tilted = [(x, y + slope * x + 5) for x, y in points]
            assert theil_sen(tilted) == pytest.approx(theil_sen(points) + slope)


def integrated_tail(t: float, degrees: int) -> float:
    """The tail from Student's density, by Simpson's rule."""

    def density(x: float) -> float:
        logarithm = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
        logarithm -= (degrees + 1) / 2 * math.log1p(x * x / degrees)
        return math.exp(logarithm) / math.sqrt(degrees * math.pi)

    steps = 2000
    width = t / steps
    inner = sum(density(width * step) * (4 if step % 2 else 2) for step in range(1, steps))
    return 0.5 - (density(0) + inner + density(t)) * width / 3


class TestStudent:
    @pytest.mark.parametrize(
        ("degrees", "quantile"),
        [(1, 6.3138), (2, 2.9200), (4, 2.1318), (5, 2.0150), (9, 1.8331), (30, 1.6973), (120, 1.6577)],
    )
    def test_quantiles_are_those_of_the_printed_tables(self, degrees: int, quantile: float) -> None:
        assert student_t_quantile(0.95, degrees) == pytest.approx(quantile, abs=5e-5)
        assert student_t_quantile(0.05, degrees) == pytest.approx(-quantile, abs=5e-5)
        assert student_t_tail(quantile, degrees) == pytest.approx(0.05, abs=5e-6)

    def test_the_middle_and_the_ends(self) -> None:
        assert student_t_tail(0, 3) == 0.5
        assert student_t_tail(math.inf, 3) == 0
        assert student_t_tail(-math.inf, 3) == 1
        with pytest.raises(ValueError, match="between 0 and 1"):
            student_t_quantile(1, 3)

    @settings(deadline=None)
    @given(st.floats(0.01, 20), st.integers(1, 60))
    def test_the_tail_is_the_integral_of_the_density(self, t: float, degrees: int) -> None:
        assert student_t_tail(t, degrees) == pytest.approx(integrated_tail(t, degrees), abs=1e-9)
        assert student_t_tail(t, degrees) + student_t_tail(-t, degrees) == pytest.approx(1)

    @given(st.floats(0.001, 0.999), st.integers(1, 60))
    def test_the_quantile_undoes_the_tail(self, probability: float, degrees: int) -> None:
        quantile = student_t_quantile(probability, degrees)
        assert student_t_tail(quantile, degrees) == pytest.approx(1 - probability, abs=1e-9)


class TestEquivalence:
    def test_a_worked_example(self) -> None:
        # Logarithms -0.01, 0, 0.01, 0.02: mean 0.005, standard error 0.0129099 / 2, 3 degrees.
        found = equivalence([math.exp(step / 100) for step in (-1, 0, 1, 2)], 1.05)
        assert found.ratio.value == pytest.approx(math.exp(0.005))
        reach = 2.353363 * 0.01290994 / 2
        assert found.ratio.low == pytest.approx(math.exp(0.005 - reach), abs=1e-7)
        assert found.ratio.high == pytest.approx(math.exp(0.005 + reach), abs=1e-7)
        # t = (ln 1.05 - 0.005) / 0.00645497 = 6.78393.
        assert found.p_value == pytest.approx(integrated_tail(6.78393, 3), abs=1e-7)
        assert found.holds

    def test_noise_alone_shows_nothing(self) -> None:
        assert not equivalence([0.5, 2.0, 0.6, 1.7], 1.05).holds

    def test_a_difference_beyond_the_margin_is_never_equivalent(self) -> None:
        assert equivalence([1.2, 1.2001, 1.1999], 1.05).p_value > 0.99

    def test_pairs_without_any_spread_leave_no_doubt(self) -> None:
        assert equivalence([1.0, 1.0, 1.0], 1.05).p_value == 0
        assert equivalence([1.1, 1.1, 1.1], 1.05).p_value == 1

    def test_a_single_pair_cannot_be_tested(self) -> None:
        with pytest.raises(ValueError, match="two pairs"):
            equivalence([1.0], 1.05)

    @given(ratios, st.floats(1.01, 1.5))
    def test_holds_exactly_where_the_interval_lies_within_the_margin(
        self, pairs: list[float], margin: float
    ) -> None:
        found = equivalence(pairs, margin)
        # Where the interval touches the margin, rounding decides.
        if abs(found.p_value - SIGNIFICANCE) > 1e-6:
            within = 1 / margin < found.ratio.low and found.ratio.high < margin
            assert found.holds == within

    @given(ratios)
    def test_does_not_care_which_of_the_two_comes_first(self, pairs: list[float]) -> None:
        one, other = equivalence(pairs, 1.05), equivalence([1 / ratio for ratio in pairs], 1.05)
        assert one.p_value == pytest.approx(other.p_value, abs=1e-9)
        assert one.ratio.low == pytest.approx(1 / other.ratio.high)
