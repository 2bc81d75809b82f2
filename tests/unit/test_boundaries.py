"""Energy per token under each accounting, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from inference_energy.analyse.boundaries import boundaries
from inference_energy.errors import AnalysisError
from inference_energy.models.deployments import is_deployment
from inference_energy.tables import QUALIFICATIONS, RUNS, conform

#: 1,000 tokens for 400 J in 4 s on GPU a of four; idle power 80 W.
RUN: dict[str, Any] = {
    "campaign": "c",
    "study": "batching",
    "setting": "s",
    "cycle": 1,
    "model": "m",
    "sitting": "morning",
    "gpu_uuid_hash": "a",
    "n_gpus": 1,
    "n_visible_gpus": 4,
    "n_metered_gpus": 1,
    "energy_j": 400.0,
    "energy_j_per_output_token": 0.4,
    "energy_net_j_per_output_token": 0.08,
    "n_output_tokens_measured": 1000,
    "measured_s": 4.0,
    "attention": "sdpa",
    "launcher": "fork",
    "warmup": "steady",
    "neighbours": "allowed",
}
IDLE_W = {"a": 80.0, "b": 81.0, "c": 79.0, "d": 83.0}


def _runs(*changes: dict[str, Any]) -> pd.DataFrame:
    return conform(pd.DataFrame([RUN | change for change in changes], columns=RUNS.names), RUNS)


def _qualified(sitting: str = "morning", **idle_w: float) -> pd.DataFrame:
    rows = [{"sitting": sitting, "gpu_uuid_hash": gpu, "idle_power_w": power} for gpu, power in idle_w.items()]
    return conform(pd.DataFrame(rows, columns=QUALIFICATIONS.names), QUALIFICATIONS)


def _by(runs: pd.DataFrame, qualifications: pd.DataFrame) -> pd.DataFrame:
    return boundaries(runs, qualifications).table().set_index("accounting")


def test_the_idle_rest_of_the_machine_is_estimated_from_its_qualification() -> None:
    found = _by(_runs({}), _qualified(**IDLE_W))
    # 4 s x (81 + 79 + 83) W = 972 J more.
    expected = {"taking_part_gross": 0.4, "taking_part_net": 0.08, "machine_gross": 1.372}
    assert found["energy_j_per_output_token"].to_dict() == pytest.approx(expected)
    assert found["over_default_ratio"].to_dict() == pytest.approx(
        {"taking_part_gross": 1.0, "taking_part_net": 0.2, "machine_gross": 3.43}
    )
    assert found.loc["machine_gross", ["n_idle_gpus", "basis"]].tolist() == [3, "estimated"]
    assert found["reason"].isna().all()


def test_two_qualifications_of_a_gpu_are_averaged_and_other_sittings_do_not_count() -> None:
    qualified = pd.concat([_qualified(**IDLE_W), _qualified(b=83.0), _qualified("evening", a=1.0, b=1.0, c=1.0, d=1.0)])
    found = _by(_runs({}), qualified)
    assert found.loc["machine_gross", "energy_j_per_output_token"] == pytest.approx(0.4 + 4 * (82 + 79 + 83) / 1000)


def test_a_metered_rest_is_taken_as_metered() -> None:
    metered = {"n_metered_gpus": 4, "neighbours": "none", "energy_idle_devices_j": 1000.0}
    found = _by(_runs(metered), _qualified(**IDLE_W))
    assert found.loc["machine_gross", ["energy_j_per_output_token", "basis"]].tolist() == [1.4, "metered"]


def test_a_machine_without_other_gpus_is_its_own_boundary() -> None:
    all_four = {"gpu_uuid_hash": "a+b+c+d", "n_gpus": 4, "n_metered_gpus": 4}
    found = _by(_runs(all_four), _qualified())
    assert found.loc["machine_gross", ["energy_j_per_output_token", "basis", "n_idle_gpus"]].tolist() == [
        0.4,
        "metered",
        0,
    ]


def test_what_is_unknown_is_missing_with_its_reason() -> None:
    few = _by(_runs({}), _qualified(a=80.0, b=81.0)).loc["machine_gross"]
    assert np.isnan(few["energy_j_per_output_token"])
    assert few["reason"] == "1 of the 3 other GPUs have a qualified idle power in this sitting"
    unseen = _by(_runs({"n_visible_gpus": None}), _qualified(**IDLE_W)).loc["machine_gross"]
    assert unseen["reason"] == "the record does not say how many GPUs the machine has"
    for net, reason in ((None, "idle power is not known"), (-0.1, "the GPU had not rested")):
        row = _by(_runs({"energy_net_j_per_output_token": net}), _qualified(**IDLE_W)).loc["taking_part_net"]
        assert np.isnan(row["energy_j_per_output_token"])
        assert reason in row["reason"]


def test_levels_of_the_methods_studies_are_no_deployments() -> None:
    runs = _runs(
        {"setting": "base"},
        {"setting": "other"},
        {"setting": "cold", "launcher": "cold"},
        {"setting": "short", "warmup": "forward_passes"},
        {"setting": "alone", "neighbours": "none"},
        {"setting": "kernel", "attention": "eager"},
    )
    assert is_deployment(runs).tolist() == [True, True, False, False, False, False]


def test_bad_energies_are_refused() -> None:
    with pytest.raises(AnalysisError, match="none of 1 runs"):
        boundaries(_runs({"energy_j_per_output_token": None}), _qualified())
    with pytest.raises(AnalysisError, match="batching/s in cycle 1 is 0"):
        boundaries(_runs({"energy_j_per_output_token": 0.0}), _qualified())
