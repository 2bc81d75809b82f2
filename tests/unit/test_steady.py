"""When iterations count as steady, and what happens when they never do."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from inference_energy.config import WarmUp
from inference_energy.errors import SteadyStateError
from inference_energy.measure.fakes import VirtualClock
from inference_energy.measure.steady import agree, warm_up

RULE = WarmUp(n_agree=3, agreement_fraction=0.05, n_iterations_max=10, duration_max_s=100.0)


def _warm_up(durations_s: Iterable[float], rule: WarmUp = RULE) -> list[float]:
    clock = VirtualClock(5.0)
    remaining = iter(durations_s)
    return warm_up(lambda: clock.sleep(next(remaining)), rule, clock, "run x")


@pytest.mark.parametrize(
    ("durations_s", "expected"),
    [
        ([], False),
        ([1.0, 1.0], False),
        ([1.0, 1.0, 1.0], True),
        ([0.98, 1.0, 1.02], True),  # 0.04 / 1
        ([0.97, 1.0, 1.03], False),  # 0.06 / 1
        ([40.0, 20.0, 20.8], False),
        ([40.0, 20.0, 20.8, 20.2], True),  # only the last three count
        ([1.0, 1.0, 1.0, 2.0], False),
    ],
)
def test_agreement_by_hand(durations_s: list[float], expected: bool) -> None:
    assert agree(durations_s, RULE) is expected


def test_the_warm_up_ends_at_the_first_agreement() -> None:
    slow_start = [9.0, 3.0, 1.0, 1.02, 0.99, 1.0, 1.0]
    assert _warm_up(slow_start) == pytest.approx([9.0, 3.0, 1.0, 1.02, 0.99])


def test_n_agree_is_obeyed() -> None:
    rule = RULE.model_copy(update={"n_agree": 5})
    assert len(_warm_up([1.0] * 9, rule)) == 5


def test_too_many_iterations_fail_and_name_the_last() -> None:
    with pytest.raises(SteadyStateError) as caught:
        _warm_up(itertools.cycle([1.0, 2.0]))
    assert str(caught.value).startswith(
        "run x: no steady state after 10 iterations and 15 s; the last took 2.000, 1.000, 2.000 s."
    )
    assert "the last 3 within 5.0% of their mean" in str(caught.value)


def test_too_long_a_time_fails() -> None:
    with pytest.raises(SteadyStateError, match=r"after 4 iterations and 160 s"):
        _warm_up([30.0, 20.0, 40.0, 70.0, 1.0, 1.0, 1.0])


def test_agreement_at_the_cap_is_still_agreement() -> None:
    assert len(_warm_up([5.0, 4.0, 3.0, 2.0, 5.0, 4.0, 3.0, 1.0, 1.0, 1.0])) == 10
