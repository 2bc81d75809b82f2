"""Verdicts by hand: every kind of claim, every verdict, and the edges between them."""

from __future__ import annotations

import math

import pytest

from inference_energy import verdicts
from inference_energy.verdicts import (
    CONTRADICTED,
    NOT_REPRODUCED,
    REPRODUCED,
    SAME_DIRECTION,
    Found,
    judged_arithmetic,
    judged_bound,
    judged_effect,
    judged_size,
    judged_statement,
    judged_test,
    worst,
)

NAN = math.nan


def _found(low: float, high: float, estimate: float | None = None) -> Found:
    return Found((low + high) / 2 if estimate is None else estimate, low, high)


def _alone(estimate: float) -> Found:
    return Found(estimate, NAN, NAN)


# "6 times": log 6 = 1.792, a fifth of it 0.358, so the band is 6 / 1.431 = 4.193 to 6 * 1.431 = 8.586.
@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (_found(5.5, 6.5), REPRODUCED),
        (_found(3.0, 7.0, 4.2), REPRODUCED),  # just within the band
        (_found(3.0, 7.0, 4.19), SAME_DIRECTION),  # the interval meets the band, the estimate does not
        (_found(8.0, 9.0, 8.58), REPRODUCED),
        (_found(8.0, 9.0, 8.6), SAME_DIRECTION),
        (_found(1.01, 6.0, 4.5), REPRODUCED),  # width log 5.94 is just below log 6
        (_found(1.01, 6.1, 4.5), SAME_DIRECTION),  # wider than the effect
        (_found(0.9, 5.0), NOT_REPRODUCED),  # holds 1
        (_found(0.5, 0.99), CONTRADICTED),
        (_alone(6.0), SAME_DIRECTION),
        (_alone(0.5), NOT_REPRODUCED),  # one run contradicts nothing
    ],
)
def test_an_effect_on_the_log_scale(found: Found, verdict: str) -> None:
    judged = judged_effect(found, 6.0, 0.5, 1.0, "log")
    assert judged.verdict == verdict
    assert judged.value_low == pytest.approx(4.193, rel=1e-3)
    assert judged.value_high == pytest.approx(8.586, rel=1e-3)


# A share of 10 %: neutral is 100 %, log 0.1 = -2.303, a fifth 0.461 is above log 1.5: the band is 6.67 to 15 %.
@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (_found(9.0, 11.0), REPRODUCED),
        (_found(12.0, 20.0, 14.9), REPRODUCED),
        (_found(12.0, 20.0, 15.1), SAME_DIRECTION),
        (_found(3.0, 8.0, 6.6), SAME_DIRECTION),
        (_found(90.0, 110.0), NOT_REPRODUCED),
        (_found(101.0, 110.0), CONTRADICTED),
    ],
)
def test_an_effect_below_its_neutral_value(found: Found, verdict: str) -> None:
    assert judged_effect(found, 10.0, 0.5, 100.0, "log").verdict == verdict


# A gain of 35 %: a fifth is 7, the band 28 to 42 %.
@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (_found(20.0, 36.0, 28.0), REPRODUCED),
        (_found(20.0, 36.0, 27.9), SAME_DIRECTION),
        (_found(40.0, 50.0, 42.1), SAME_DIRECTION),
        (_found(-5.0, 40.0), NOT_REPRODUCED),
        (_found(-9.0, -1.0), CONTRADICTED),
    ],
)
def test_an_effect_on_the_linear_scale(found: Found, verdict: str) -> None:
    assert judged_effect(found, 35.0, 0.5, 0.0, "linear").verdict == verdict


def test_a_published_tolerance_widens_the_band() -> None:
    assert judged_effect(_found(5.9, 6.3), 10.0, 0.5, 100.0, "log").verdict == SAME_DIRECTION
    judged = judged_effect(_found(5.9, 6.3), 10.0, 4.0, 100.0, "log")  # 10 ± 4: from 6
    assert (judged.verdict, judged.value_low) == (REPRODUCED, 6.0)


@pytest.mark.parametrize(
    ("found", "scale", "verdict"),
    [
        (_found(100.0, 110.0), "linear", REPRODUCED),  # 127.7 ± 25.5: from 102.2
        (_found(90.0, 102.0), "linear", NOT_REPRODUCED),
        (_found(20.0, 300.0), "linear", NOT_REPRODUCED),  # wider than 127.7
        (_alone(127.7), "linear", NOT_REPRODUCED),
        (_found(70.0, 100.0, 86.0), "log", REPRODUCED),  # a fifth of log 127.7 is a factor of 2.6: capped at 1.5
        (_found(70.0, 100.0, 85.0), "log", NOT_REPRODUCED),
    ],
)
def test_a_size_has_no_other_side(found: Found, scale: str, verdict: str) -> None:
    assert judged_size(found, 127.7, 0.05, scale).verdict == verdict


# A reduction of 99.8 % is a fold of 500: from 500 / 1.5 = 333 (99.7 %) to 750 (99.867 %).
@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (_found(99.72, 99.84), REPRODUCED),
        (_found(99.0, 99.8, 99.6), NOT_REPRODUCED),  # half the fold
        (_found(99.7, 99.95, 99.9), NOT_REPRODUCED),  # twice
    ],
)
def test_a_reduction_is_judged_by_the_fold_that_it_makes(found: Found, verdict: str) -> None:
    judged = judged_size(found, 99.8, 0.05, "reduction")
    assert judged.verdict == verdict
    assert judged.value_low == pytest.approx(100 * (1 - 1.5 / 500))
    fold = Found(*(1 / (1 - end / 100) for end in (found.estimate, found.low, found.high)))
    assert judged_size(fold, 500.0, 0.0, "log").verdict == verdict


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (_found(2.0, 2.5), REPRODUCED),
        (_found(1.9, 2.5), SAME_DIRECTION),
        (_found(0.9, 2.5), NOT_REPRODUCED),
        (_found(0.8, 0.9), CONTRADICTED),
        (_alone(2.5), SAME_DIRECTION),
        (_alone(0.9), NOT_REPRODUCED),
    ],
)
def test_a_bound(found: Found, verdict: str) -> None:
    assert judged_bound(found, 2.0, 1.0).verdict == verdict


@pytest.mark.parametrize(
    ("found", "low", "high", "verdict"),
    [
        (_found(0.96, 1.04), 0.95, 1.05, REPRODUCED),
        (_found(0.94, 1.04), 0.95, 1.05, NOT_REPRODUCED),
        (_found(1.06, 1.2), 0.95, 1.05, CONTRADICTED),
        (_found(1.0, 9.0), 1.0, NAN, REPRODUCED),
        (_found(0.5, 0.9), 1.0, NAN, CONTRADICTED),
        (_found(0.2, 0.5), NAN, 0.5, REPRODUCED),
        (_found(0.6, 0.7), NAN, 0.5, CONTRADICTED),
        (_alone(1.2), 1.0, NAN, SAME_DIRECTION),
        (_alone(0.8), 1.0, NAN, NOT_REPRODUCED),
    ],
)
def test_a_statement(found: Found, low: float, high: float, verdict: str) -> None:
    assert judged_statement(found, low, high).verdict == verdict


def test_the_worst_of_several_contradicts_only_after_a_correction() -> None:
    # 0.73 × or ÷ 1.215 at 95 %: of three, Bonferroni's 2.394 normal errors in place of 1.960, so × or ÷ 1.268
    found = Found(0.73, 0.73 / 1.215, 0.73 * 1.215)
    assert judged_statement(found, 0.9, NAN, "log").verdict == CONTRADICTED
    assert judged_statement(found, 0.9, NAN, "log", 2).verdict == NOT_REPRODUCED  # × 1.2495: 0.912
    assert "worst of 3" in judged_statement(found, 0.9, NAN, "log", 3).note
    assert judged_statement(found, 0.93, NAN, "log", 3).verdict == CONTRADICTED  # 0.926
    assert judged_statement(_found(1.0, 1.2), 0.9, NAN, "log", 9).verdict == REPRODUCED  # all hold: no correction


def test_without_an_interval_the_verdict_says_so() -> None:
    assert verdicts.NO_INTERVAL in judged_effect(_alone(6.0), 6.0, 0.5, 1.0, "log").note
    assert verdicts.NO_INTERVAL in judged_statement(_alone(1.2), 1.0, NAN).note
    noted = judged_bound(Found(2.5, NAN, NAN, note="one pair"), 2.0, 1.0)
    assert noted.note == f"one pair; {verdicts.NO_INTERVAL}"


def test_a_test_never_contradicts() -> None:
    assert judged_test(_alone(0.05), 0.95).verdict == REPRODUCED
    assert judged_test(_alone(0.0501), 0.95).verdict == NOT_REPRODUCED
    assert judged_test(_alone(1.0), 0.95).verdict == NOT_REPRODUCED


def test_arithmetic_is_held_to_the_printed_rounding() -> None:
    assert judged_arithmetic(_alone(6.63), 7.0, 0.5).verdict == REPRODUCED  # iPhone: 0.015 / (1.5 / 663)
    assert judged_arithmetic(_alone(0.3868), 0.39, 0.005).verdict == REPRODUCED  # web search
    assert judged_arithmetic(_alone(44.2), 129.0, 0.5).verdict == CONTRADICTED  # kettle


def test_a_statement_is_as_good_as_its_worst_part() -> None:
    parts = [judged_statement(_found(low, high), 0.95, 1.05) for low, high in ((0.99, 1.01), (0.96, 1.04))]
    assert worst(parts) is parts[1]  # both hold; the second lies closer to an end
    parts.append(judged_statement(_found(0.9, 1.0), 0.95, 1.05))
    assert worst(parts).verdict == NOT_REPRODUCED
    parts.append(judged_statement(_found(1.06, 1.07), 0.95, 1.05))
    assert worst(parts).verdict == CONTRADICTED


def test_our_effect_over_the_published_one() -> None:
    assert verdicts.effect_ratio(6.0, 6.0, 1.0, "log") == pytest.approx(1.0)
    assert verdicts.effect_ratio(36.0, 6.0, 1.0, "log") == pytest.approx(2.0)
    assert verdicts.effect_ratio(1.0, 6.0, 1.0, "log") == pytest.approx(0.0)
    assert verdicts.effect_ratio(-17.5, 35.0, 0.0, "linear") == pytest.approx(-0.5)


def test_our_size_over_the_published_one() -> None:
    assert verdicts.size_ratio(104.5, 293.5, "log") == pytest.approx(0.356, rel=1e-3)
    assert verdicts.size_ratio(99.6, 99.8, "reduction") == pytest.approx(0.5)  # folds of 250 and 500
