"""The published spread beside ours, with the units of both."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from inference_energy.analyse.published_spread import published_spread
from inference_energy.errors import AnalysisError

PUBLISHED = Path(__file__).resolve().parents[2] / "resources" / "published" / "baker_energy_stats.csv"

OURS = {
    "energy_mean_j_per_output_token": 2.592,
    "energy_sd_j_per_output_token": 3.312,
    "cv": 2.554,
    "max_over_min_fold": 100.0,
    "p95_over_p5_fold": 30.5,
    "max_over_min_reduction_fraction": 0.99,
    "p95_over_p5_reduction_fraction": 0.967,
}


def _published() -> pd.DataFrame:
    return pd.read_csv(PUBLISHED, dtype="string", keep_default_na=False)


def _summary(*groups: tuple[str, str, str]) -> pd.DataFrame:
    ends = {
        f"{name}_{end}": value * factor for name, value in OURS.items() for end, factor in (("low", 0.5), ("high", 2))
    }
    rows = [
        {"study": study, "model": model, "accounting": accounting, "n_settings": 40, **OURS, **ends}
        for study, model, accounting in groups
    ]
    return pd.DataFrame(rows)


def test_units_are_converted() -> None:
    found = published_spread(_summary(("grid", "llama-3.2-1b", "taking_part_gross")), _published()).table()
    by = found.set_index("quantity")
    # 1.44e-6 kWh x 3.6e6 J/kWh = 5.184 J, twice ours; 127.7 % is 1.277, half of ours.
    assert by.loc["energy_mean_j_per_output_token", "value"] == pytest.approx(5.184)
    assert by.loc["energy_mean_j_per_output_token", "published_ratio"] == pytest.approx(2.0)
    assert by.loc["cv", "value"] == pytest.approx(1.277)
    assert by.loc["cv", "published_ratio"] == pytest.approx(0.5)
    assert by.loc["p95_over_p5_fold", ["value", "estimate", "low", "high"]].tolist() == [61.0, 30.5, 15.25, 61.0]
    assert by.loc["max_over_min_reduction_fraction", "value"] == pytest.approx(0.998)
    assert set(by["n_settings"]) == {40}


def test_only_the_default_accounting_the_studies_that_compare_and_published_models() -> None:
    summary = _summary(
        ("grid", "llama-3.2-1b", "taking_part_gross"),
        ("grid", "llama-3.2-1b", "machine_gross"),
        ("batching", "llama-3.2-1b", "taking_part_gross"),
        ("all_deployments", "llama-3.2-3b", "taking_part_gross"),
        ("all_deployments", "tiny-llama", "taking_part_gross"),
        ("all_deployments", "all", "taking_part_gross"),
    )
    found = published_spread(summary, _published()).table()
    assert set(zip(found["study"], found["model"], strict=True)) == {
        ("grid", "llama-3.2-1b"),
        ("all_deployments", "llama-3.2-3b"),
    }
    assert published_spread(summary.iloc[4:], _published()).table().empty


def test_a_broken_file_is_named() -> None:
    summary = _summary(("grid", "llama-3.2-1b", "taking_part_gross"))
    with pytest.raises(AnalysisError, match=r"no columns \['cv_pct'\]"):
        published_spread(summary, _published().drop(columns="cv_pct"))
    with pytest.raises(AnalysisError, match=r"max_min_fold.*'many' is no number"):
        published_spread(summary, _published().assign(max_min_fold="many"))
