"""Anchors that repeat and anchors that do not, with deviations worked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawn_campaign import conformed

from inference_energy.analyse.anchors import anchors
from inference_energy.tables import RUNS


def _runs(values: list[tuple[str, str, float]], utilisation: float = 0.95) -> pd.DataFrame:
    """Runs of one setting as (host, GPU, energy), in order of time."""
    rows = [
        {
            "study": "anchors",
            "setting": "a",
            "cycle": cycle,
            "status": "ok",
            "host": host,
            "gpu_uuid_hash": gpu,
            "sitting": host,
            "started_at_utc": f"2000-01-01T00:0{cycle}:00+00:00",
            "energy_j_per_output_token": energy,
            "throughput_tokens_per_s": 100.0 / energy,
            "gpu_utilisation_fraction": utilisation,
        }
        for cycle, (host, gpu, energy) in enumerate(values, start=1)
    ]
    return conformed(RUNS, rows)


def _energy(runs: pd.DataFrame) -> pd.DataFrame:
    table = anchors(runs, margin_fraction=0.02).table()
    return table[table["quantity"] == "energy_j_per_output_token"].reset_index(drop=True)


def test_deviations_are_those_worked_by_hand() -> None:
    table = _energy(_runs([("h", "g1", 1.0), ("h", "g1", 1.01), ("i", "g2", 1.21)]))
    first, second = (np.log(1.0) + np.log(1.01)) / 2, np.log(1.21)
    mean = np.exp((first + second) / 2)
    np.testing.assert_allclose(table["over_mean_ratio"], np.array([1.0, 1.01, 1.21]) / mean, rtol=1e-12)
    np.testing.assert_allclose(table["over_previous_ratio"], [np.nan, 1.01, np.nan], rtol=1e-12)
    assert table["same_gpu_cv"].iloc[0] == pytest.approx(np.log(1.01) / np.sqrt(2), rel=1e-9)
    assert table["between_gpus_cv"].iloc[0] == pytest.approx((second - first) / np.sqrt(2), rel=1e-9)
    assert table["between_hosts_cv"].iloc[0] == pytest.approx((second - first) / np.sqrt(2), rel=1e-9)
    assert table["same_gpu_largest_fraction"].iloc[0] == pytest.approx(0.01, rel=1e-9)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([("h", "g1", 1.0), ("h", "g1", 1.019), ("i", "g2", 2.0)], "repeats"),  # GPUs may differ
        ([("h", "g1", 1.0), ("h", "g1", 1.021)], "differs"),
        ([("h", "g1", 1.0), ("h", "g2", 1.0)], "undecided"),
    ],
)
def test_the_verdict_is_about_one_gpu(values: list[tuple[str, str, float]], verdict: str) -> None:
    assert (_energy(_runs(values))["verdict"] == verdict).all()


def test_what_keeps_the_gpu_busy_is_bound_by_it() -> None:
    values = [("h", "g1", 1.0), ("h", "g1", 1.0)]
    assert _energy(_runs(values))["gpu_bound"].all()
    assert not _energy(_runs(values, utilisation=0.35))["gpu_bound"].any()


def test_a_campaign_without_anchors_has_an_empty_table() -> None:
    assert anchors(_runs([("h", "g", 1.0)]).assign(study="batching"), margin_fraction=0.02).table().empty
