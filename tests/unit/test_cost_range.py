"""The three settings of a model, with a pooled interval worked by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from drawn_campaign import conformed

from inference_energy import tables
from inference_energy.analyse.cost_range import cost_range
from inference_energy.errors import AnalysisError

#: Student's t with two degrees of freedom at 0.975, from the tables.
T = 4.302653


def _runs(*logs: tuple[str, str, float], **levels: object) -> pd.DataFrame:
    """Runs (model, setting, logarithm of the energy), a cycle each."""
    usual = {"n_gpus": 1, "traffic": "none", "launcher": "fork", "warmup": "steady", "attention": "sdpa"}
    usual |= {"neighbours": "allowed", "batch_size": 8, "n_output_tokens": 128, "precision": "float16"}
    rows = [
        {**usual, "model": model, "setting": setting, "cycle": n, "energy_j_per_output_token": math.exp(log), **levels}
        for n, (model, setting, log) in enumerate(logs)
    ]
    return conformed(tables.RUNS, rows)


REPEATED = (("m", "a", 0.0), ("m", "a", 0.2), ("m", "b", 1.0), ("m", "b", 1.2), ("m", "c", 2.0))


def test_the_interval_pools_the_scatter_of_all_repetitions() -> None:
    rows = cost_range(_runs(*REPEATED), confidence=0.95).table().set_index("which")
    scatter = math.sqrt(4 * 0.1**2 / 2)  # four deviations of 0.1, five runs less three settings
    assert list(rows["setting"]) == ["a", "b", "c"]
    assert list(rows["n_runs"]) == [2, 2, 1]
    assert list(rows["n_repeats"]) == [2, 2, 2]
    assert rows["repeat_cv"].tolist() == pytest.approx([scatter] * 3, rel=1e-9)
    for which, mean, n in (("least", 0.1, 2), ("median", 1.1, 2), ("most", 2.0, 1)):
        half = T * scatter / math.sqrt(n)
        found = rows.loc[which, [f"energy_j_per_output_token{end}" for end in ("", "_low", "_high")]]
        assert [math.log(value) for value in found] == pytest.approx([mean, mean - half, mean + half], abs=1e-6)


def test_the_median_of_an_even_number_is_a_setting_that_was_measured() -> None:
    logs = [("m", name, place) for name, place in zip("abcd", (0.0, 1.0, 2.0, 3.0), strict=True)]
    rows = cost_range(_runs(*logs), confidence=0.95).table().set_index("which")
    assert rows.loc["median", "setting"] == "b"
    assert rows["energy_j_per_output_token_low"].isna().all()  # nothing was repeated
    assert rows["repeat_cv"].isna().all()
    assert set(rows["n_settings"]) == {4}


def test_models_stand_apart_and_share_their_scatter() -> None:
    rows = cost_range(_runs(*REPEATED, ("n", "d", 5.0)), confidence=0.95).table()
    assert rows.groupby("model")["which"].apply(list).to_dict() == {m: ["least", "median", "most"] for m in "mn"}
    of_n = rows[rows["model"] == "n"]
    assert set(of_n["setting"]) == {"d"}
    assert of_n["energy_j_per_output_token_low"].notna().all()


def test_runs_that_ask_about_the_method_are_no_deployments() -> None:
    odd = _runs(("m", "odd", -3.0), warmup="forward_passes")
    cold = _runs(("m", "cold", 9.0), launcher="cold")
    rows = cost_range(pd.concat([_runs(*REPEATED), odd, cold], ignore_index=True), confidence=0.95).table()
    assert list(rows["setting"]) == ["a", "b", "c"]


def test_an_empty_campaign_has_no_rows_and_a_zero_is_an_error() -> None:
    assert cost_range(_runs(), confidence=0.95).table().empty
    failed = _runs(("m", "a", 0.0)).assign(energy_j_per_output_token=float("nan"))
    assert cost_range(failed, confidence=0.95).table().empty
    with pytest.raises(AnalysisError, match=r"is 0\. Expected: a value above 0"):
        cost_range(_runs(("m", "a", 0.0)).assign(energy_j_per_output_token=0.0), confidence=0.95)
