"""How many iterations fill a window: long enough, and whole periods of traffic over all windows."""

from __future__ import annotations

from typing import Any

import pytest

from inference_energy.config import Measurement, Setting
from inference_energy.measure.windows import Plan, n_unlike

MEASUREMENT = Measurement(n_windows=5, window_min_s=3.0)
BURSTS: dict[str, Any] = {"traffic": "burst", "delay_min_s": 0.1, "delay_max_s": 0.2, "burst_interval_s": 4.0}


def _windows(plan: Plan, duration_s: float) -> list[int]:
    """Iterations of each window where each takes `duration_s`."""
    counts = []
    for window in range(5):
        n = 0
        while not plan.full(window, n, n * duration_s):
            n += 1
        counts.append(n)
    return counts


def _levels(**levels: Any) -> Setting:
    return Setting(**{"model": "m", "batch_size": 8, **levels})


@pytest.mark.parametrize(("duration_s", "n"), [(1.1, 3), (3.0, 1), (7.4, 1), (0.5, 6)])
def test_where_all_iterations_are_alike_a_window_is_full_once_it_is_long_enough(duration_s: float, n: int) -> None:
    assert _windows(Plan(_levels(), MEASUREMENT, duration_s), duration_s) == [n] * 5


def test_constant_delays_ask_for_no_whole_pass() -> None:
    levels = _levels(n_prompts=128, traffic="constant", delay_min_s=0.4, delay_max_s=0.5)
    assert _windows(Plan(levels, MEASUREMENT, 1.1), 1.55) == [2] * 5


@pytest.mark.parametrize(
    ("size", "duration_s", "expected"),
    [
        (8, 1.1, [3, 3, 3, 3, 4]),  # eight iterations of 1.75 s on average last 14 s; 15 s are wanted: two periods
        (16, 1.1, [3, 3, 3, 3, 4]),
        (8, 7.4, [1, 2, 1, 2, 2]),
    ],
)
def test_the_windows_together_hold_whole_bursts(size: int, duration_s: float, expected: list[int]) -> None:
    plan = Plan(_levels(n_prompts=128, burst_size=size, **BURSTS), MEASUREMENT, duration_s)
    assert _windows(plan, duration_s) == expected


def test_bursts_that_never_fire_are_constant_delays() -> None:
    levels = _levels(batch_size=32, n_prompts=128, burst_size=8, **BURSTS)
    assert Plan(levels, MEASUREMENT, 1.1).period == 1


def test_a_smaller_last_batch_asks_for_whole_passes() -> None:
    counts = _windows(Plan(_levels(n_prompts=20), MEASUREMENT, 1.0), 1.0)
    assert sum(counts) % 3 == 0
    assert sum(counts) >= 15


def test_without_a_warm_iteration_each_window_has_one_at_least() -> None:
    counts = _windows(Plan(_levels(n_prompts=20), MEASUREMENT, None), 1.0)
    assert counts == [1, 1, 1, 1, 2]


@pytest.mark.parametrize("factor", ["input_length_cv", "output_length_cv"])
def test_lengths_that_differ_ask_for_whole_passes(factor: str) -> None:
    levels = _levels(n_prompts=32, **{factor: 0.5})
    plan = Plan(levels, MEASUREMENT, 1.0)
    assert n_unlike(levels) == plan.period == 4
    assert _windows(plan, 1.0) == [3, 3, 3, 3, 4]  # 15 s are wanted: four passes of four
    assert n_unlike(_levels(n_prompts=32)) == 1


def test_one_batch_of_several_lengths_is_like_the_next() -> None:
    assert Plan(_levels(input_length_cv=0.5), MEASUREMENT, 1.0).period == 1


@pytest.mark.parametrize("duration_s", [None, 0.5, 40.0])
@pytest.mark.parametrize("cv", [0.0, 0.5])
def test_requests_that_arrive_have_one_window_of_one_pass(duration_s: float | None, cv: float) -> None:
    arrival = {"arrival": "poisson", "arrival_requests_per_s": 2.0, "engine": "vllm_server", "output_length_cv": cv}
    plan = Plan(_levels(**{**arrival, "batch_size": 1, "n_prompts": 300}), MEASUREMENT, duration_s)
    assert (plan.n_windows, plan.n_iterations, plan.period) == (1, 1, 1)
    assert not plan.full(0, 0, 0.0)
    assert plan.full(0, 1, 0.5)
    assert Plan(_levels(), MEASUREMENT, duration_s).n_windows == 5
