"""Shares of variance by hand and against statsmodels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from inference_energy.analyse.explained import explained, r_squared
from inference_energy.errors import AnalysisError
from inference_energy.tables.speed import UTILISATION

BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 400, "seed": 1}
JOINT = ["flop_per_output_token", "bytes_per_output_token", "gpu_throughput_tokens_per_s", "gpu_utilisation_fraction"]


def _runs(model: str = "m", n: int = 20, flop: float = 4e9, seed: int = 1, n_cycles: int = 2) -> pd.DataFrame:
    """Energies made of throughput and a little utilisation, at one number of FLOP."""
    rng = np.random.default_rng(seed)
    rows = []
    for setting in range(n):
        speed, busy, moved = np.exp(rng.normal(6, 1)), rng.uniform(0.2, 0.9), np.exp(rng.normal(18, 1))
        for cycle in range(1, n_cycles + 1):
            energy = flop / 4e9 * 150 / speed * busy**0.3 * np.exp(rng.normal(0, 0.05))
            rows.append(
                {
                    "study": "batching",
                    "setting": f"{model}{setting:02d}",
                    "cycle": cycle,
                    "model": model,
                    "n_input_tokens": 128,
                    "n_output_tokens": 128,
                    "energy_j_per_output_token": energy,
                    "throughput_tokens_per_s": speed,
                    "gpu_throughput_tokens_per_s": speed,
                    "flop_per_output_token": flop,
                    "bytes_per_output_token": moved,
                    "gpu_utilisation_fraction": busy,
                    "power_over_limit_fraction": energy * speed / 700,
                    "mfu": flop * speed / 1e15,
                    "mbu": moved * speed / 5e12,
                }
            )
    return pd.DataFrame(rows, columns=UTILISATION.names)


def _table(runs: pd.DataFrame) -> pd.DataFrame:
    return explained(runs, **BOOTSTRAP).table().set_index(["scope", "predictor"])


def _statsmodels(runs: pd.DataFrame, names: list[str]) -> float:
    means = (
        np.log(runs.set_index("setting")[["energy_j_per_output_token", *names]].astype(float)).groupby("setting").mean()
    )
    return float(sm.OLS(means.iloc[:, 0], sm.add_constant(means[names])).fit().rsquared)


def test_a_share_by_hand() -> None:
    # x = 1, 2, 3 and y = 1, 2, 2: Sxy = 1, Sxx = 2, Syy = 2/3, so R² = 1 / (2 * 2/3) = 3/4.
    draws = np.array([[[1.0, 1.0], [2.0, 2.0], [2.0, 3.0]]])
    assert r_squared(draws, [1]) == pytest.approx([0.75])
    assert r_squared(draws, []) == pytest.approx([0.0])


def test_a_predictor_said_twice_adds_nothing() -> None:
    values = np.random.default_rng(2).normal(size=(1, 10, 2))
    doubled = np.concatenate([values, 3 * values[..., 1:]], axis=-1)
    assert r_squared(doubled, [1, 2]) == pytest.approx(r_squared(values, [1]))


def test_shares_are_those_of_statsmodels() -> None:
    runs = pd.concat([_runs("m"), _runs("n", flop=12e9, seed=2)])
    table = _table(runs)
    for name in JOINT:
        assert table.loc[("all", name), "variance_fraction"] == pytest.approx(_statsmodels(runs, [name]), rel=1e-9)
        rest = [other for other in JOINT if other != name]
        lost = _statsmodels(runs, JOINT) - _statsmodels(runs, rest)
        assert table.loc[("all", name), "unique_fraction"] == pytest.approx(lost, abs=1e-9)
    assert table.loc[("all", "mfu"), "variance_fraction"] == pytest.approx(_statsmodels(runs, ["mfu"]), rel=1e-9)
    assert table.loc[("all", "mfu"), "note"].startswith("alone only")
    assert pd.isna(table.loc[("all", "mfu"), "unique_fraction"])


def test_flop_explain_nothing_within_a_model_and_something_over_two() -> None:
    table = _table(pd.concat([_runs("m"), _runs("n", flop=12e9, seed=2)]))
    for model in ("m", "n"):
        row = table.loc[(model, "flop_per_output_token")]
        assert row[["variance_fraction", "variance_fraction_low", "variance_fraction_high"]].tolist() == [0, 0, 0]
        assert row["unique_fraction"] == 0
        assert row["note"] == "takes one value, so it explains nothing"
    assert table.loc[("all", "flop_per_output_token"), "n_values"] == 2
    assert table.loc[("all", "flop_per_output_token"), "variance_fraction"] > 0.05


def test_the_interval_holds_the_estimate_and_narrows_with_more_settings() -> None:
    name = ("m", "gpu_utilisation_fraction")
    widths = []
    for n in (12, 120):
        row = _table(_runs(n=n)).loc[name]
        assert row["variance_fraction_low"] <= row["variance_fraction"] <= row["variance_fraction_high"]
        widths.append(row["variance_fraction_high"] - row["variance_fraction_low"])
    assert widths[1] < widths[0] / 1.5


def test_other_lengths_are_left_out() -> None:
    long = _runs("m", n=3, seed=3).assign(n_output_tokens=500, setting="long")
    assert (_table(pd.concat([_runs("m"), long]))["n_settings"] == 20).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gpu_utilisation_fraction": float("nan")}, "40 of 40 runs have no value"),
        ({"gpu_utilisation_fraction": 0.0}, "40 of 40 runs have a value that is not above 0"),
    ],
)
def test_what_was_not_measured_cannot_be_estimated(change: dict[str, float], reason: str) -> None:
    table = _table(_runs().assign(**change))
    row = table.loc[("m", "gpu_utilisation_fraction")]
    assert row["note"].startswith(f"cannot be estimated, because {reason}")
    assert pd.isna(row["variance_fraction"])
    assert table.loc[("m", "gpu_throughput_tokens_per_s"), "joint_fraction"] > 0.9


def test_too_few_settings_cannot_be_estimated() -> None:
    table = _table(_runs(n=5))
    assert (table["note"] == "cannot be estimated, because 5 settings are too few: at least 6 are needed").all()


def test_no_run_is_refused() -> None:
    with pytest.raises(AnalysisError, match="holds no run"):
        explained(_runs().iloc[:0], **BOOTSTRAP)


def test_an_energy_that_is_not_above_zero_is_refused() -> None:
    with pytest.raises(AnalysisError, match="a value above 0"):
        explained(_runs().assign(energy_j_per_output_token=0.0), **BOOTSTRAP)
