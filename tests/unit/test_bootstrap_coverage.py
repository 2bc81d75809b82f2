"""Intervals of the spread hold the truth as often as they say: simulated campaigns of a grid whose truth is known."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from inference_energy.resample import mean_over_settings

_PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "bootstrap_coverage.py"
_SPEC = importlib.util.spec_from_file_location("bootstrap_coverage", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
simulation = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(simulation)

#: Two standard errors of a share of 0.95 in 400 campaigns: what chance may add to 93 and 97 %.
CHANCE = 2 * np.sqrt(0.95 * 0.05 / 400)


@pytest.fixture(scope="module")
def found() -> dict[str, float]:
    shares: dict[str, float] = simulation.coverage(simulation.grid_logs(), 100, 400, 300, seed=3)
    return shares


@pytest.mark.parametrize(
    "name",
    [
        "energy_mean_j_per_output_token",
        "cv",
        "energy_p05_j_per_output_token",
        "energy_p50_j_per_output_token",
        "energy_p95_j_per_output_token",
        "p95_over_p5_fold",
        "p95_over_p50_fold",
        "p50_over_p5_fold",
    ],
)
def test_ninety_five_percent_of_the_intervals_hold_the_truth(found: dict[str, float], name: str) -> None:
    assert 0.93 - CHANCE <= found[name] <= 0.97 + CHANCE


def test_extremes_are_not_covered_as_the_documentation_says(found: dict[str, float]) -> None:
    assert found["max_over_min_fold"] < 0.8


def test_the_mean_of_few_settings_is_covered() -> None:
    # Log ratios of eight settings in two cycles, as analyses of factors have them.
    rng = np.random.default_rng(1)
    names = [f"{i}" for i in range(8) for _ in range(2)]
    hits = 0
    for _ in range(400):
        values = (rng.normal(0, 1, (8, 1)) + rng.normal(0, 0.5, (8, 2))).ravel()
        _, low, high = mean_over_settings(names, list(values), 0.95, 400, rng)
        hits += low <= 0 <= high
    assert 0.93 - CHANCE <= hits / 400 <= 0.97 + CHANCE
