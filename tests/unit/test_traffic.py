"""Simulated waiting: pauses counted by hand, delays within their bounds and the same for the same seed."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from inference_energy.config import Setting
from inference_energy.measure.traffic import Traffic, expected_wait_s, n_pauses, period_batches

CONSTANT = {"traffic": "constant", "delay_min_s": 0.1, "delay_max_s": 0.2}
BURST = {**CONSTANT, "traffic": "burst", "burst_interval_s": 4.0, "burst_size": 8}


def _levels(**changes: Any) -> Setting:
    return Setting(model="m", **changes)


def _pauses(levels: Setting, n_batches: int) -> list[int]:
    return [batch for batch in range(n_batches) for _ in range(n_pauses(levels, batch))]


def test_without_traffic_nothing_waits() -> None:
    levels = _levels()
    assert [Traffic(levels, 1, 0).wait_s(batch) for batch in range(3)] == [0.0, 0.0, 0.0]
    assert (period_batches(levels), expected_wait_s(levels)) == (1, 0.0)


def test_constant_delays_of_the_published_grid() -> None:
    levels = _levels(**CONSTANT, n_prompts=128)
    traffic = Traffic(levels, seed=3, process=0)
    waits_s = [traffic.wait_s(batch) for batch in range(400)]
    assert min(waits_s) >= 0.1
    assert max(waits_s) <= 0.2
    assert np.mean(waits_s) == pytest.approx(0.15, abs=0.005)
    assert len(set(waits_s)) == 400  # a second pass waits anew
    assert (period_batches(levels), expected_wait_s(levels)) == (1, pytest.approx(0.15))


def test_the_same_seed_waits_the_same_whatever_is_asked_first() -> None:
    levels = _levels(**CONSTANT)
    forward, backward = Traffic(levels, 3, 1), Traffic(levels, 3, 1)
    in_order = [forward.wait_s(batch) for batch in range(9)]
    assert [backward.wait_s(batch) for batch in reversed(range(9))] == in_order[::-1]
    for other in (Traffic(levels, 4, 1), Traffic(levels, 3, 2)):
        assert [other.wait_s(batch) for batch in range(9)] != in_order


@pytest.mark.parametrize(
    ("batch_size", "before", "period", "pauses_per_batch"),
    [
        (8, [8, 16, 24, 32], 8, 2 / 16),  # 16 batches a pass: after the 8th and the 16th
        (16, [8, 16, 24, 32], 8, 1 / 8),  # 8 batches a pass: after the last
        (32, [], 1, 0),  # 4 batches a pass: a burst is never complete
        (11, [8, 20, 32], 12, 1 / 12),  # 12 batches a pass: after the 8th, then the count begins anew
    ],
)
def test_bursts_of_batches_as_the_published_code_counts_them(
    batch_size: int, before: list[int], period: int, pauses_per_batch: float
) -> None:
    levels = _levels(**BURST, n_prompts=128, batch_size=batch_size)
    assert _pauses(levels, 33) == before
    assert period_batches(levels) == period
    assert expected_wait_s(levels) == pytest.approx(0.15 + 4 * pauses_per_batch)
    traffic = Traffic(levels, 1, 0)
    assert [batch for batch in range(33) if traffic.wait_s(batch) >= 4.1] == before


@pytest.mark.parametrize(
    ("batch_size", "before", "period", "expected_s"),
    [
        (8, [1, 2, 3, 4, 5, 6], 1, 8 * 0.15 + 4),
        (4, [2, 4, 6], 2, 4 * 0.15 + 4 / 2),
        (12, [0, 1, 2, 2, 3, 4, 4, 5, 6, 6], 2, 12 * 0.15 + 4 * 1.5),  # before queries 8; 16; 24, 32; 40; 48, 56
    ],
)
def test_bursts_of_queries_in_an_endless_stream(
    batch_size: int, before: list[int], period: int, expected_s: float
) -> None:
    levels = _levels(**BURST, delay_every="query", batch_size=batch_size)
    assert _pauses(levels, 7) == before
    assert period_batches(levels) == period
    assert expected_wait_s(levels) == pytest.approx(expected_s)


def test_a_batch_waits_for_all_its_queries() -> None:
    levels = _levels(**CONSTANT, delay_every="query", batch_size=4, n_prompts=10)
    traffic = Traffic(levels, 5, 0)
    delays_s = np.random.default_rng([5, 0, 77]).uniform(0.1, 0.2, 20)
    ends = [0, 4, 8, 10, 14, 18, 20]  # the last batch of a pass has two
    expected = [delays_s[a:b].sum() for a, b in itertools.pairwise(ends)]
    assert [traffic.wait_s(batch) for batch in range(6)] == pytest.approx(expected)
    assert expected_wait_s(levels) == pytest.approx(10 * 0.15 / 3)


def test_an_incomplete_last_batch_of_queries_makes_the_pass_the_period() -> None:
    levels = _levels(**BURST, delay_every="query", batch_size=4, n_prompts=15)
    assert _pauses(levels, 8) == [2, 6]  # before query 8 of each pass; 15 queries complete one burst
    assert period_batches(levels) == 4
    whole = _levels(**BURST, delay_every="query", batch_size=4, n_prompts=16)
    assert _pauses(whole, 9) == [2, 4, 6, 8]
    assert period_batches(whole) == 2
    assert expected_wait_s(levels) == pytest.approx((15 * 0.15 + 4) / 4)


def test_bursts_in_an_endless_stream_of_batches() -> None:
    levels = _levels(**BURST)
    assert _pauses(levels, 25) == [8, 16, 24]
    assert (period_batches(levels), expected_wait_s(levels)) == (8, pytest.approx(0.15 + 0.5))
    alone = _levels(**{**BURST, "burst_size": 1})
    assert _pauses(alone, 3) == [1, 2]
    assert (period_batches(alone), expected_wait_s(alone)) == (1, pytest.approx(0.15 + 4))


def test_replicas_count_their_own_share() -> None:
    levels = _levels(**BURST, n_prompts=128, batch_size=8, parallelism="replicas", n_gpus=2)
    assert _pauses(levels, 17) == [8, 16]  # 8 batches a process
    duplicated = _levels(**BURST, n_prompts=128, batch_size=8, parallelism="replicas_duplicated", n_gpus=2)
    assert period_batches(duplicated) == 8
    assert duplicated.n_batches_per_pass == 16
