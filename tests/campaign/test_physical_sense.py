"""Does a campaign make physical sense? A rule of the workflow runs this on every campaign's tables.

``pytest tests/campaign --campaign-folder results/<campaign>``; without the option the golden tables
of the tests are checked, so that this file itself is tested.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from inference_energy import tables

#: A second of full power over the limit is within the counter's accuracy.
POWER_LIMIT_SLACK = 1.05


@pytest.fixture(scope="module")
def runs(campaign_folder: Path) -> pd.DataFrame:
    frame = tables.read("runs", campaign_folder / "tables")
    return frame[frame["status"] == "ok"]


@pytest.fixture(scope="module")
def windows(campaign_folder: Path) -> pd.DataFrame:
    return tables.read("windows", campaign_folder / "tables")


def _offenders(frame: pd.DataFrame, bad: pd.Series) -> list[str]:
    return (frame["study"] + "/" + frame["setting"])[bad.fillna(False)].tolist()


def test_there_are_runs_with_numbers(runs: pd.DataFrame) -> None:
    assert len(runs) > 0


def test_energy_and_throughput_are_positive(runs: pd.DataFrame) -> None:
    for column in ("energy_j_per_output_token", "throughput_tokens_per_s", "power_mean_w"):
        assert not _offenders(runs, ~(runs[column] > 0)), column


def test_power_lies_between_idle_and_limit(runs: pd.DataFrame) -> None:
    limit_w = runs["power_limit_w"] * runs["n_gpus"] * POWER_LIMIT_SLACK
    assert not _offenders(runs, runs["power_mean_w"] > limit_w)
    counted = runs["energy_method"] == "nvml_total_energy"
    assert not _offenders(runs, counted & (runs["power_mean_w"] < runs["idle_power_w"]))


def test_tokens_are_as_planned(runs: pd.DataFrame) -> None:
    """An iteration is one batch of every process that answers; the last batch of a pass may be smaller."""
    answering = runs["n_gpus"].where(runs["parallelism"].isin(["replicas", "replicas_duplicated"]), 1)
    planned = runs["n_iterations"] * runs["batch_size"] * answering * runs["n_output_tokens"]
    shared = runs["n_gpus"].where(runs["parallelism"] == "replicas", 1)
    even = (runs["n_prompts"] // shared) % runs["batch_size"] == 0
    assert not _offenders(runs, even & (runs["n_output_tokens_measured"] != planned))
    assert not _offenders(runs, (runs["n_output_tokens_measured"] > planned) | (runs["n_output_tokens_measured"] <= 0))


def test_counter_and_integrated_power_agree(runs: pd.DataFrame) -> None:
    ratio = runs["counter_over_power_ratio"].dropna()
    if len(ratio):
        assert 0.99 <= ratio.median() <= 1.01
        assert ratio.between(0.9, 1.1).all()


def test_windows_are_long_and_many(windows: pd.DataFrame) -> None:
    per_run = windows.groupby(["study", "setting", "cycle"])["window"].count()
    assert (per_run >= 5).all()
    assert (windows["duration_s"] > 1).all()


def test_energy_is_power_times_time(windows: pd.DataFrame) -> None:
    energy_j = windows["power_mean_w"] * windows["duration_s"]
    pd.testing.assert_series_equal(energy_j, windows["energy_j"], check_names=False, rtol=1e-9)
