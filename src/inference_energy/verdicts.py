"""Does an estimate meet a claim? Verdicts by ``docs/claims.md``; arithmetic on one estimate and one claim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

#: A replication on other hardware is not held to a printed number's rounding: a fifth of the claimed effect.
BAND_FRACTION = 0.2
#: On a logarithmic scale a fifth of a large fold is several times the fold; half as much again is the most.
BAND_FACTOR_MAX = 1.5

REPRODUCED, SAME_DIRECTION, NOT_REPRODUCED = "reproduced", "same direction", "not reproduced"
CONTRADICTED, NOT_TESTABLE = "contradicted", "not testable here"
VERDICTS = (REPRODUCED, SAME_DIRECTION, NOT_REPRODUCED, CONTRADICTED, NOT_TESTABLE)
NO_INTERVAL = "without an interval the verdict is at most the same direction"


@dataclass(frozen=True)
class Found:
    """One estimate beside what a claim asks of it.

    Attributes
    ----------
    estimate, low, high : float
        Ours, and its interval's ends; missing without one.
    value_low, value_high : float
        What counts as the claim.
    quantity : str
        The estimate in words.
    note : str
        What limits it.
    verdict : str
        One of :data:`VERDICTS`.
    """

    estimate: float
    low: float
    high: float
    value_low: float = math.nan
    value_high: float = math.nan
    quantity: str = ""
    note: str = ""
    verdict: str = ""

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def ends(self) -> tuple[float, float]:
        """The interval, or the estimate twice."""
        return (self.low, self.high) if self.has_interval else (self.estimate, self.estimate)


def judged_effect(found: Found, value: float, tolerance: float, neutral: float, scale: str) -> Found:
    """Judge an effect: our estimate meets the published one, our interval lies on its side, or beyond `neutral`.

    Parameters
    ----------
    found : Found
        Our estimate, in the unit of `value`.
    value, tolerance, neutral : float
        Published value, its tolerance, and the value that means no effect.
    scale : str
        ``log``, ``linear`` or ``reduction``: where effects are measured.
    """
    effect, (low_band, high_band) = _on(scale, value) - _on(scale, neutral), _band(value, tolerance, neutral, scale)
    towards = math.copysign(1.0, effect)
    low, high = sorted(towards * (_on(scale, end) - _on(scale, neutral)) for end in found.ends)
    wide = high - low > abs(effect)
    said = replace(found, value_low=low_band, value_high=high_band)
    if not found.has_interval:
        return noted(replace(said, verdict=SAME_DIRECTION if low > 0 else NOT_REPRODUCED), NO_INTERVAL)
    if high < 0:
        return replace(said, verdict=CONTRADICTED)
    if low > 0 and low_band <= found.estimate <= high_band and not wide:
        return replace(said, verdict=REPRODUCED)
    if low > 0:
        return replace(said, verdict=SAME_DIRECTION)
    return noted(replace(said, verdict=NOT_REPRODUCED), "the interval holds the neutral value: too wide to tell")


def judged_size(found: Found, value: float, tolerance: float, scale: str) -> Found:
    """Judge a level, share or spread, which has no other side: our estimate lies in the published value's band."""
    neutral = 1.0 if scale == "log" else 0.0
    low_band, high_band = _band(value, tolerance, neutral, scale)
    said = replace(found, value_low=low_band, value_high=high_band, verdict=NOT_REPRODUCED)
    low, high = found.ends
    if not found.has_interval:
        return noted(said, "without an interval a size cannot be reproduced")
    if _on(scale, high) - _on(scale, low) > abs(_on(scale, value) - _on(scale, neutral)):
        return noted(said, "the interval is wider than the published size: too wide to tell")
    return replace(said, verdict=REPRODUCED) if low_band <= found.estimate <= high_band else said


def judged_bound(found: Found, bound: float, neutral: float) -> Found:
    """Judge a bound above `neutral`: our interval lies wholly beyond it."""
    said = replace(found, value_low=bound)
    low, high = found.ends
    if not found.has_interval:
        return noted(replace(said, verdict=SAME_DIRECTION if low > neutral else NOT_REPRODUCED), NO_INTERVAL)
    if low >= bound:
        return replace(said, verdict=REPRODUCED)
    if high < neutral:
        return replace(said, verdict=CONTRADICTED)
    return replace(said, verdict=SAME_DIRECTION if low > neutral else NOT_REPRODUCED)


def judged_statement(
    found: Found, low: float, high: float, scale: str = "linear", n_parts: int = 1, confidence: float = 0.95
) -> Found:
    """Judge what is true between `low` and `high` (missing: no end): our interval lies wholly inside, or outside.

    Parameters
    ----------
    found : Found
        One of `n_parts` estimates; the least favourable decides.
    low, high : float
        Where the statement is true.
    scale : str
        Where the interval is about symmetric.
    n_parts : int
        A statement is contradicted by the worst of so many intervals, so this one is widened after Bonferroni,
        by the ratio of normal quantiles. To hold, all parts must, which needs no correction.
    confidence : float
        Level of one interval.
    """
    said = replace(found, value_low=low, value_high=high)
    least, most = -math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high
    ours = found.ends
    inside = least <= ours[0] and ours[1] <= most
    if not found.has_interval:
        return noted(replace(said, verdict=SAME_DIRECTION if inside else NOT_REPRODUCED), NO_INTERVAL)
    if _outside(_widened(found, scale, n_parts, confidence), least, most):
        return replace(said, verdict=CONTRADICTED)
    if _outside(ours, least, most):
        return noted(
            replace(said, verdict=NOT_REPRODUCED), f"outside, but not after a correction for the worst of {n_parts}"
        )
    if inside:
        return replace(said, verdict=REPRODUCED)
    return noted(replace(said, verdict=NOT_REPRODUCED), "the interval reaches beyond what is claimed")


def judged_test(found: Found, confidence: float) -> Found:
    """Judge a p-value: at most one less `confidence`."""
    verdict = REPRODUCED if found.estimate <= 1 - confidence else NOT_REPRODUCED
    return replace(found, value_low=0.0, value_high=1 - confidence, verdict=verdict)


def judged_arithmetic(found: Found, value: float, tolerance: float) -> Found:
    """Judge a printed number computed from others: within its rounding."""
    follows = abs(found.estimate - value) <= tolerance * (1 + 1e-9)
    verdict = REPRODUCED if follows else CONTRADICTED
    return replace(found, value_low=value - tolerance, value_high=value + tolerance, verdict=verdict)


def as_folds(ours: float, value: float) -> str:
    """Two reductions in percent as the folds that are compared: ``judged as folds, 865× beside 516×``."""
    return f"judged as folds, {math.exp(_on('reduction', ours)):.3g}× beside {math.exp(_on('reduction', value)):.3g}×"


def size_ratio(ours: float, value: float, scale: str) -> float:
    """Ours over the published size; of a reduction, of the folds behind them."""
    if scale == "reduction":
        return math.exp(_on(scale, ours) - _on(scale, value))
    return ours / value


def effect_ratio(ours: float, value: float, neutral: float, scale: str) -> float:
    """Our effect over the published one, both from `neutral` on `scale`: 0 is no effect, 1 as published."""
    return (_on(scale, ours) - _on(scale, neutral)) / (_on(scale, value) - _on(scale, neutral))


def worst(parts: Sequence[Found]) -> Found:
    """The part that decides a statement of several: the least favourable, by verdict and then by its margin."""
    order = (CONTRADICTED, NOT_REPRODUCED, SAME_DIRECTION, REPRODUCED)
    return min(parts, key=lambda part: (order.index(part.verdict), _margin(part)))


def _margin(part: Found) -> float:
    """How far inside what is claimed the estimate with its interval lies, as a logarithm where that exists."""
    low, high = part.ends
    scale = "log" if min(low, high) > 0 else "linear"
    gaps = [
        sign * (_on(scale, end) - _on(scale, limit))
        for end, limit, sign in ((low, part.value_low, 1), (high, part.value_high, -1))
        if math.isfinite(limit) and (scale == "linear" or limit > 0)
    ]
    return min(gaps, default=0.0)


def _outside(ends: tuple[float, float], least: float, most: float) -> bool:
    return ends[1] < least or ends[0] > most


def _widened(found: Found, scale: str, n_parts: int, confidence: float) -> tuple[float, float]:
    """The interval of `found` at the level that each of `n_parts` needs for `confidence` in all of them."""
    if n_parts == 1:
        return found.ends
    tail, normal = (1 - confidence) / 2, NormalDist()
    wider = normal.inv_cdf(1 - tail / n_parts) / normal.inv_cdf(1 - tail)
    here = _on(scale, found.estimate)
    low, high = (_off(scale, here + wider * (_on(scale, end) - here)) for end in found.ends)
    return low, high


def _on(scale: str, value: float) -> float:
    """`value` where effects add up; a reduction in percent is the logarithm of the fold that it makes."""
    if scale == "linear":
        return value
    if scale == "reduction":
        return -math.log(1 - value / 100) if value < 100 else math.inf
    return math.log(value) if value > 0 else -math.inf


def _off(scale: str, there: float) -> float:
    """The inverse of :func:`_on`."""
    if scale == "linear":
        return there
    return 100 * (1 - math.exp(-there)) if scale == "reduction" else math.exp(there)


def _band(value: float, tolerance: float, neutral: float, scale: str) -> tuple[float, float]:
    """Ends of what counts as `value`: a fifth of the effect, or the published tolerance where that is more."""
    here, half = _on(scale, value), BAND_FRACTION * abs(_on(scale, value) - _on(scale, neutral))
    if scale != "linear":
        half = min(half, math.log(BAND_FACTOR_MAX))
    return min(_off(scale, here - half), value - tolerance), max(_off(scale, here + half), value + tolerance)


def noted(found: Found, note: str) -> Found:
    """`found` with one more note."""
    return replace(found, note="; ".join(part for part in (found.note, note) if part))
