"""Does a campaign make physical sense? A rule of the workflow runs this on every campaign's tables.

``pytest tests/campaign --campaign-folder results/<campaign>``; without the option the golden tables
of the tests are checked, so that this file itself is tested.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from inference_energy import tables

#: A second of full power over the limit is within the counter's accuracy.
POWER_LIMIT_SLACK = 1.05
#: Samples of power are this coarse beside the counter over short prefills.
SAMPLING_SLACK = 1.1


@pytest.fixture(scope="module")
def runs(campaign_folder: Path) -> pd.DataFrame:
    frame = tables.read("runs", campaign_folder / "tables")
    return frame[frame["status"] == "ok"]


@pytest.fixture(scope="module")
def windows(campaign_folder: Path) -> pd.DataFrame:
    return tables.read("windows", campaign_folder / "tables")


@pytest.fixture(scope="module")
def requests(campaign_folder: Path) -> pd.DataFrame:
    return tables.read("requests", campaign_folder / "tables")


def _arrives(runs: pd.DataFrame) -> pd.Series:
    return runs["arrival"].fillna("none").ne("none")


def _mixed(runs: pd.DataFrame) -> pd.Series:
    return runs[["input_length_cv", "output_length_cv"]].fillna(0).gt(0).any(axis=1)


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
    idle_w = runs[["idle_power_w", "idle_loaded_power_w"]].max(axis=1)  # bare, in a shared process of its first run
    assert not _offenders(runs, counted & (runs["power_mean_w"] < idle_w))


def test_tokens_are_as_planned(runs: pd.DataFrame, requests: pd.DataFrame) -> None:
    """An iteration is one batch of every process that answers; the last batch of a pass may be smaller.

    Where requests arrive it is the whole pass. Lengths that differ add up to the mean over whole passes, which the
    windows hold together; a request that fails answers less.
    """
    answering = runs["n_gpus"].where(runs["parallelism"].isin(["replicas", "replicas_duplicated"]), 1)
    at_once = runs["batch_size"].where(~_arrives(runs), runs["n_prompts"]) * answering
    planned = runs["n_iterations"] * at_once * runs["n_output_tokens"]
    shared = runs["n_gpus"].where(runs["parallelism"] == "replicas", 1)
    even = (runs["n_prompts"] // shared) % runs["batch_size"] == 0
    key = ["study", "setting", "cycle"]
    with_failures = requests.loc[requests["outcome"] != "ok", key].drop_duplicates().assign(fails=True)
    whole = runs[key].merge(with_failures, how="left", on=key)["fails"].isna().to_numpy()
    assert not _offenders(runs, even & whole & (runs["n_output_tokens_measured"] != planned))
    assert not _offenders(runs, (runs["n_output_tokens_measured"] > planned) | (runs["n_output_tokens_measured"] <= 0))
    prompts = runs["n_prompts_measured"] * runs["n_input_tokens"]
    assert not _offenders(runs, even & whole & (runs["n_effective_input_tokens_measured"] != prompts))


def test_padding_is_computed_only_where_lengths_differ(runs: pd.DataFrame) -> None:
    for asked, computed in (
        ("n_effective_input_tokens_measured", "n_input_tokens_measured"),
        ("n_output_tokens_measured", "n_computed_output_tokens_measured"),
    ):
        assert not _offenders(runs, runs[asked] > runs[computed]), asked
        assert not _offenders(runs, ~_mixed(runs) & (runs[asked] != runs[computed])), asked


def test_prefill_is_a_part_of_a_run_and_nearly_all_of_one_token(runs: pd.DataFrame) -> None:
    assert not _offenders(runs, runs["prefill_s"] > runs["measured_s"])
    assert not _offenders(runs, runs["prefill_energy_j"] > runs["energy_j"] * SAMPLING_SLACK)
    alone = runs[(runs["n_output_tokens"] == 1) & ~_arrives(runs) & runs["prefill_s"].notna()]
    assert not _offenders(alone, alone["prefill_s"] < alone["measured_s"] / SAMPLING_SLACK)
    assert not _offenders(alone, alone["prefill_energy_j"] < alone["energy_j"] / SAMPLING_SLACK)


def test_requests_are_answered_in_order_and_in_full(requests: pd.DataFrame) -> None:
    answered = requests[requests["outcome"] == "ok"]
    assert (answered["n_tokens_counted"] == answered["n_tokens_requested"]).all()
    assert answered["n_tokens_reported"].fillna(answered["n_tokens_counted"]).eq(answered["n_tokens_counted"]).all()
    assert (answered["sent_s"] >= answered["scheduled_s"]).all()
    assert (answered["first_token_s"] > answered["sent_s"]).all()
    assert (answered["ended_s"] >= answered["first_token_s"]).all()


def test_counter_and_integrated_power_agree(runs: pd.DataFrame) -> None:
    ratio = runs["counter_over_power_ratio"].dropna()
    if len(ratio):
        assert 0.99 <= ratio.median() <= 1.01
        assert ratio.between(0.9, 1.1).all()


def test_windows_are_long_and_many(runs: pd.DataFrame, windows: pd.DataFrame) -> None:
    """Requests that arrive make one window, with all of them; of mixed lengths, windows are long on average."""
    key = ["study", "setting", "cycle"]
    lasts = windows.groupby(key)["duration_s"].agg(["count", "min", "mean"]).reset_index()
    found = runs.merge(lasts, on=key, how="left")
    assert not _offenders(found, found["count"].fillna(0) < np.where(_arrives(found), 1, 5))
    assert not _offenders(found, ~(found["min"].where(~_mixed(found), found["mean"]) > 1))


def test_energy_is_power_times_time(windows: pd.DataFrame) -> None:
    energy_j = windows["power_mean_w"] * windows["duration_s"]
    pd.testing.assert_series_equal(energy_j, windows["energy_j"], check_names=False, rtol=1e-9)
