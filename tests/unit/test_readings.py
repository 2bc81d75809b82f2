"""Integration of samples, by hand and against NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import synthetic

from inference_energy.flatten import window_rows
from inference_energy.readings import (
    codecarbon_gpu_power_w,
    codecarbon_powers_w,
    cumulative_energy_j,
    per_iteration,
    shared_energies_j,
    tail_energies_j,
    taking_part,
    work_s,
)
from inference_energy.records import CodeCarbonEnergy


@pytest.mark.parametrize(
    ("at_s", "energy_j"),
    [
        (0.0, 0.0),
        (0.5, 6.25),  # 10 W rising to 15 W
        (1.0, 15.0),
        (2.0, 30.0),  # 20 W falling to 10 W
        (3.0, 35.0),
        (4.0, 35.0),  # the last sample, 0 W, holds
        (-1.0, -10.0),  # the first, 10 W, holds
    ],
)
def test_edges_between_samples_are_interpolated(at_s: float, energy_j: float) -> None:
    found = cumulative_energy_j([0.0, 1.0, 3.0], [10.0, 20.0, 0.0], [at_s])
    np.testing.assert_allclose(found, [energy_j], rtol=1e-12, atol=1e-12)


def test_energy_between_edges_is_numpys_trapezoid_over_the_same_points() -> None:
    rng = np.random.default_rng(1)
    times, powers = np.sort(rng.uniform(0, 10, 50)), rng.uniform(50, 700, 50)
    left, right = 2.345, 7.891
    inside = (times > left) & (times < right)
    points = np.concatenate([[left], times[inside], [right]])
    expected = np.trapezoid(np.interp(points, times, powers), points)
    found = np.diff(cumulative_energy_j(times, powers, [left, right]))
    np.testing.assert_allclose(found, [expected], rtol=1e-12)


def test_a_missing_sample_is_bridged_and_a_trace_without_any_is_missing() -> None:
    bridged = cumulative_energy_j([0.0, 1.0, 2.0], np.array([10.0, np.nan, 20.0]), [2.0])
    np.testing.assert_allclose(bridged, [30.0], rtol=1e-12)
    assert np.isnan(cumulative_energy_j([0.0, 1.0], np.array([np.nan, np.nan]), [0.5])).all()
    assert np.isnan(cumulative_energy_j([], [], [0.5])).all()


def test_each_device_is_billed_from_its_own_tick_to_its_own_tick_less_its_waiting() -> None:
    levels = {"model": "llama-3.2-1b", "parallelism": "replicas", "n_gpus": 2}
    resolved = synthetic.small_campaign(studies={"parallelism": {"question": "SYNTHETIC?", "settings": [levels]}})
    record = synthetic.campaign_records(resolved)[0]
    place = next(index for index, one in enumerate(record.intervals) if one.phase == "window")
    window = record.intervals[place]
    worked_s = window.work_ended_s - window.opened_s
    # By hand: 300 W while working, 123 W (idle, loaded) while waiting; the second device ticks 40 ms before the
    # work begins and 70 ms after it ends, the first 0 ms before and 50 ms after.
    waits_s = np.array([0.0 + 0.05, 0.04 + 0.07])
    seen_j = 300.0 * worked_s + synthetic.IDLE_LOADED_W * waits_s
    changed = synthetic.altered(
        record,
        {
            f"intervals.{place}.closed_s": window.work_ended_s + 0.07,
            f"intervals.{place}.device_opened_s": [window.opened_s, window.opened_s - 0.04],
            f"intervals.{place}.device_closed_s": [window.work_ended_s + 0.05, window.work_ended_s + 0.07],
            f"intervals.{place}.counter_opened_j": [1000.0, 2000.0],
            f"intervals.{place}.counter_closed_j": (np.array([1000.0, 2000.0]) + seen_j).tolist(),
        },
    )
    window = changed.intervals[place]
    tails_j, settling_j = tail_energies_j(changed, window)
    assert taking_part(changed) == [0, 1]
    np.testing.assert_allclose(tails_j, synthetic.IDLE_LOADED_W * waits_s, rtol=1e-9)
    np.testing.assert_allclose(seen_j - tails_j, 300.0 * worked_s, rtol=1e-9)
    mean_w = seen_j / (worked_s + waits_s)
    np.testing.assert_allclose(settling_j, (mean_w - synthetic.IDLE_LOADED_W) * 0.010, rtol=1e-9)
    shared_j = 300.0 * worked_s + synthetic.IDLE_LOADED_W * 0.07  # both from the work's begin to 70 ms after it
    np.testing.assert_allclose(shared_energies_j(changed, window), shared_j, rtol=1e-9)


def test_where_requests_arrive_the_work_is_from_the_first_arrival_to_the_last_answer() -> None:
    record = synthetic.campaign_records(synthetic.small_campaign())[0]
    place = next(index for index, one in enumerate(record.intervals) if one.phase == "window")
    window = record.intervals[place]
    opened_s, ended_s = window.opened_s, window.work_ended_s
    two = {
        "scheduled_s": [opened_s + 0.06, opened_s + 0.1],  # by hand: connections take 60 ms
        "sent_s": [opened_s + 0.061, None],
        "first_token_s": [opened_s + 0.2, None],
        "ended_s": [ended_s - 0.04, ended_s - 0.09],  # the last answer comes 40 ms before all are read
        "n_input_tokens": [4, 4],
        "n_tokens_requested": [8, 8],
        "n_tokens_counted": [8, 0],
        "n_tokens_reported": [8, None],
        "outcome": ["ok", "refused"],
        "detail": [None, None],
        "client_cpu_s": 0.1,
        "client_wall_s": 0.3,
    }
    changed = synthetic.altered(record, {"requests": two})
    assert work_s(record, window) == (opened_s, ended_s)
    assert work_s(changed, window) == (opened_s + 0.06, ended_s - 0.04)
    assert work_s(changed, record.intervals[place + 1]) == work_s(record, record.intervals[place + 1])  # none arrive
    before, after = (window_rows(one)[0] for one in (record, changed))
    assert after["duration_s"] == pytest.approx(before["duration_s"] - 0.1, rel=1e-12)
    assert after["energy_j"] == pytest.approx(before["energy_j"] - synthetic.IDLE_LOADED_W * 0.1, rel=1e-9)
    assert after["tail_s"] == pytest.approx(before["tail_s"] + 0.04, rel=1e-9)


def test_answers_of_several_lengths_and_requests_that_arrive_have_no_decoding_steps() -> None:
    record = synthetic.campaign_records(synthetic.small_campaign())[0]
    window = next(one for one in record.intervals if one.phase == "window")
    n_tokens, n_steps = per_iteration(record, window)
    assert n_steps == record.levels.n_output_tokens
    mixed = synthetic.altered(record, {"workload.n_output_tokens_of": [1, 31]})
    assert per_iteration(mixed, window)[0] == n_tokens
    assert math.isnan(per_iteration(mixed, window)[1])


def test_codecarbon_that_read_no_gpu_is_missing_beside_nvml_and_nowhere_else() -> None:
    """CodeCarbon counts 0 J where it finds no GPU; a machine without a GPU has none to find."""
    record = synthetic.campaign_records(synthetic.small_campaign())[0]
    windows = [one for one in record.intervals if one.phase == "window"]
    laps = [
        {"duration_s": 2.0, "cpu_energy_j": 20.0, "ram_energy_j": 4.0, "gpu_energy_j": joules} for joules in (600, 0)
    ]
    nvml, estimate = (
        synthetic.altered(record, {"meter.energy_method": method})
        for method in ("nvml_total_energy", "codecarbon_estimate")
    )
    seen, blind = (windows[0].model_copy(update={"codecarbon": CodeCarbonEnergy(**lap)}) for lap in laps)
    np.testing.assert_allclose(codecarbon_powers_w(nvml, [seen, seen]), (312.0, 300.0), rtol=1e-12)
    np.testing.assert_allclose(codecarbon_powers_w(estimate, [blind]), (12.0, 0.0), rtol=1e-12)
    assert np.isnan(codecarbon_powers_w(nvml, [seen, blind])).all()
    assert np.isnan(codecarbon_gpu_power_w(nvml, blind))
    assert codecarbon_gpu_power_w(estimate, blind) == 0.0
