"""Integration of samples, by hand and against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from inference_energy.readings import cumulative_energy_j


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
