"""The few statistics of the report. Pure: numbers in, numbers out, chance handed in.

A run's latencies are not independent of each other, but runs of freshly started processes are. So
every interval here is taken over rounds, never over single requests.
"""

import math
import random
from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import fmean, median, stdev
from typing import Final, TypeVar

import msgspec

RESAMPLES: Final = 2000
CONFIDENCE_PER_MILLE: Final = 950
SIGNIFICANCE: Final = 0.05

_FRACTION_STEPS_MAX: Final = 500
_TINY: Final = 1e-300

Round = TypeVar("Round")


class Interval(msgspec.Struct, frozen=True):
    """A figure, and the bounds within which it is known."""

    value: float
    low: float
    high: float


class Equivalence(msgspec.Struct, frozen=True):
    """Whether pairs of figures are the same but for a margin."""

    ratio: Interval
    """Geometric mean of the pairs' ratios, with the interval that the test at 5 % goes by (90 %)."""
    margin: float
    p_value: float
    """How likely ratios this close to 1 are where the true one lies outside of the margin."""

    @property
    def holds(self) -> bool:
        """Whether the test shows the two to be equivalent."""
        return self.p_value < SIGNIFICANCE


def percentile(ordered: Sequence[float], per_mille: int) -> float:
    """The least of the ordered values that so many thousandths of them do not exceed."""
    if not ordered:
        raise ValueError("no percentile of nothing")
    return ordered[max(-(-len(ordered) * per_mille // 1000), 1) - 1]


def bootstrap(
    rounds: Sequence[Round],
    statistic: Callable[[Sequence[Round]], float],
    choose: random.Random,
    resamples: int = RESAMPLES,
) -> Interval:
    """The statistic of the rounds, and where 95 % of its values lie over rounds drawn again.

    Of a single round there is nothing to draw from: the bounds are then the value itself.
    """
    value = statistic(rounds)
    if len(rounds) < 2:
        return Interval(value, value, value)
    drawn = sorted(statistic(choose.choices(rounds, k=len(rounds))) for _ in range(resamples))
    outside = (1000 - CONFIDENCE_PER_MILLE) // 2
    return Interval(value, percentile(drawn, outside), percentile(drawn, 1000 - outside))


def theil_sen(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between all pairs of points; pairs at the same x have none."""
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x1 != x2]
    if not slopes:
        raise ValueError("no slope without two different x")
    return median(slopes)


def equivalence(ratios: Sequence[float], margin: float) -> Equivalence:
    """Two one-sided t tests on the logarithms of paired ratios, against 1/`margin` and `margin`."""
    if len(ratios) < 2:
        raise ValueError("no test with less than two pairs")
    logarithms = [math.log(ratio) for ratio in ratios]
    mean, bound, degrees = fmean(logarithms), math.log(margin), len(ratios) - 1
    error = stdev(logarithms) / math.sqrt(len(ratios))
    reach = student_t_quantile(1 - SIGNIFICANCE, degrees) * error
    # The worse of the two tests is the one against the nearer bound.
    distance = bound - abs(mean)
    # Pairs without any spread leave no doubt.
    sure = math.inf if distance > 0 else -math.inf
    p_value = student_t_tail(distance / error if error > 0 else sure, degrees)
    interval = Interval(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))
    return Equivalence(interval, margin, p_value)


def student_t_tail(t: float, degrees: int) -> float:
    """The probability of a value above `t` under Student's distribution."""
    beyond = 0.5 * _incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))
    return beyond if t > 0 else 1 - beyond


def student_t_quantile(probability: float, degrees: int) -> float:
    """The value that Student's distribution stays below with that probability."""
    if not 0 < probability < 1:
        raise ValueError("a probability between 0 and 1, both excluded")
    high = 1.0
    while student_t_tail(high, degrees) > min(probability, 1 - probability):
        high *= 2
    low = -high
    while (middle := (low + high) / 2) not in (low, high):
        if student_t_tail(middle, degrees) > 1 - probability:
            low = middle
        else:
            high = middle
    return middle


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(logarithm + a * math.log(x) + b * math.log1p(-x))
    # The fraction converges fast on this side of the mean only; the other side is its mirror.
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a
    return 1 - front * _beta_fraction(b, a, 1 - x) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    c = 1.0
    d = _reciprocal(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, _FRACTION_STEPS_MAX):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for numerator in (even, odd):
            d = _reciprocal(1 + numerator * d)
            c = 1 + numerator / c
            c = c if abs(c) > _TINY else _TINY
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return fraction


def _reciprocal(number: float) -> float:
    return 1 / (number if abs(number) > _TINY else _TINY)
