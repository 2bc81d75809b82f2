"""The published grid: its settings, models that predict it, and its folds, on energies of a known law."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_effects import energy, make_runs

from inference_energy.analyse.grid_folds import grid_folds
from inference_energy.analyse.grid_left_out import grid_left_out
from inference_energy.analyse.grid_models import grid_models
from inference_energy.analyse.grid_prediction import grid_prediction
from inference_energy.config import Setting
from inference_energy.errors import AnalysisError
from inference_energy.measure.traffic import expected_wait_s
from inference_energy.models.additive import fit
from inference_energy.models.grid import published_grid

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    pd.read_csv(ROOT / "resources" / "published" / f"{name}.csv", dtype="string", keep_default_na=False)
    for name in ("baker_grid_configs", "baker_grid_axes", "baker_grid_latency_levels", "baker_energy_stats")
]
STATS = FILES.pop()
STEP_J = {"float32": 2.0, "float16": 1.2, "int8": 4.0, "int4": 2.2}
TOKEN_J = {"float32": 0.03, "float16": 0.008, "int8": 0.02, "int4": 0.02}
SIZE = {"llama-3.2-1b": 1.0, "llama-3.2-3b": 2.1}
WAITING_W = 120.0
MEASURED, PREDICTED = "energy_measured_j_per_output_token", "energy_predicted_j_per_output_token"
FOLDS: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 400, "seed": 1}


def law(row: Any, wait_s: float) -> float:
    """Joules: of a step, shared by the batch; of a token; of waiting."""
    step = STEP_J[row.precision] * SIZE[row.model] * (1.05 if row.n_gpus > 1 else 1)
    return (
        step / row.batch_size + TOKEN_J[row.precision] * SIZE[row.model] + WAITING_W * wait_s / (row.batch_size * 128)
    )


def _grid() -> pd.DataFrame:
    grid = published_grid(*FILES)
    return grid.assign(batch_size=grid["batch_size"].astype(int))


def _measured(n: int, noise: float, seed: int) -> pd.DataFrame:
    """Runs of `n` settings of the grid, drawn by chance, two cycles each."""
    rng = np.random.default_rng(seed)
    levels = FILES[2].set_index("latency_level")
    rows = []
    for place in rng.permutation(len(_GRID))[:n]:
        row = _GRID.iloc[place]
        waiting = levels.loc[row.latency_level]
        wait = float(row.batch_wait_s)
        traffic: dict[str, Any] = {}
        if waiting["simulate"] == "1":
            traffic = {"traffic": "constant", "waited_s": 10 * wait}
            traffic |= {name: float(waiting[name]) for name in ("delay_min_s", "delay_max_s")}
        if waiting["burst"] == "1":
            traffic |= {"traffic": "burst", "burst_interval_s": float(waiting["burst_interval_s"])}
            traffic |= {"burst_size": int(waiting["burst_size_batches"])}
        own = np.log(law(row, wait)) + noise * rng.standard_normal()
        sharing = {"parallelism": "replicas_duplicated" if row.n_gpus > 1 else "none", "n_gpus": int(row.n_gpus)}
        decoding = {"decoding": "top_p", "top_p": 0.8, "sampling_temperature": 0.8, "n_prompts": 128}
        own_levels = {"model": row.model, "precision": row.precision, "batch_size": int(row.batch_size)}
        for cycle in (1, 2):
            rows.append(
                energy(
                    own,
                    setting=f"g{place}",
                    study="grid",
                    cycle=cycle,
                    **(own_levels | sharing | decoding | traffic),
                )
            )
    return make_runs(*rows)


_GRID = _grid()


def test_the_grid_is_the_published_one_with_waits_as_they_are_measured() -> None:
    assert len(_GRID) == 2112
    assert _GRID["identity"].is_unique
    assert set(_GRID["model"]) == set(SIZE)
    levels = FILES[2].set_index("latency_level")
    for row in _GRID[(_GRID["n_gpus"] == 1) & (_GRID["model"] == "llama-3.2-1b")].itertuples():
        waiting = levels.loc[row.latency_level]
        fields: dict[str, Any] = {"model": row.model, "batch_size": row.batch_size, "n_prompts": 128}
        if waiting["simulate"] == "1":
            fields |= {"traffic": "constant", "delay_min_s": waiting["delay_min_s"]}
            fields |= {"delay_max_s": waiting["delay_max_s"]}
        if waiting["burst"] == "1":
            fields |= {"traffic": "burst", "burst_interval_s": waiting["burst_interval_s"]}
            fields |= {"burst_size": waiting["burst_size_batches"]}
        assert row.batch_wait_s == pytest.approx(expected_wait_s(Setting.model_validate(fields)), rel=1e-12)


def test_with_several_processes_a_batch_waits_for_the_slowest() -> None:
    row = _GRID[(_GRID["n_gpus"] == 3) & (_GRID["latency_level"] == "const_0.1_0.2")].iloc[0]
    assert row["batch_wait_s"] == pytest.approx(0.1 + 0.1 * 3 / 4)  # the mean largest of three uniform numbers


def test_unknown_published_levels_are_refused() -> None:
    configs, axes, latency = FILES
    with pytest.raises(AnalysisError, match="fp64"):
        published_grid(configs.assign(precision="fp64"), axes, latency)


def test_a_law_of_the_candidates_kind_is_recovered_exactly() -> None:
    runs = _measured(120, 0.0, seed=1)
    table = grid_prediction(runs, *FILES, confidence=0.95).table()
    assert table["status"].value_counts().to_dict() == {"predicted": 2112 - 120, "measured": 120}
    truth = [law(row, row.batch_wait_s) for row in _GRID.itertuples()]
    assert table[PREDICTED].to_numpy() == pytest.approx(np.array(truth), rel=1e-3)
    measured = table["status"] == "measured"
    assert table.loc[measured, MEASURED].to_numpy() == pytest.approx(np.array(truth)[measured], rel=1e-9)
    assert table.loc[~measured, MEASURED].isna().all()
    chosen = grid_models(runs, confidence=0.95).table()
    chosen = chosen[chosen["chosen"]].iloc[0]
    assert chosen["candidate"].startswith("steps")
    assert chosen["waiting_power_w"] == pytest.approx(WAITING_W, rel=1e-3)


def test_prediction_intervals_cover_new_measurements() -> None:
    inside, left_out = [], []
    for seed in range(6):
        runs = _measured(100, 0.08, seed=seed)
        table = grid_prediction(runs, *FILES, confidence=0.95).table()
        rows = table[table["status"] == "predicted"]
        rng = np.random.default_rng(100 + seed)
        truth = np.array([law(row, row.batch_wait_s) for row in _GRID.itertuples()])[rows.index]
        new = truth * np.exp(0.08 * rng.standard_normal(len(truth)))
        inside.append(((rows[f"{PREDICTED}_low"] <= new) & (new <= rows[f"{PREDICTED}_high"])).mean())
        left_out.append(
            grid_models(runs, confidence=0.95).table().query("chosen")["interval_coverage_fraction"].iloc[0]
        )
    assert 0.93 <= np.mean(inside) <= 0.97
    assert 0.9 <= np.mean(left_out) <= 0.99


def test_leaving_out_by_formula_is_leaving_out_by_fitting_again() -> None:
    rng = np.random.default_rng(4)
    factor = rng.choice(["a", "b", "c"], 40)
    settings = pd.DataFrame(
        {"factor": factor, "x": rng.normal(size=40), "scale": np.where(rng.random(40) < 0.5, 1.0, 0)}
    )
    noise = 0.05 * rng.normal(size=40)
    plain = 0.5 + 0.4 * settings["x"] + (factor == "b")
    settings["log_energy"] = np.log(np.exp(plain) + 2 * settings["scale"]) + noise
    linear, summed = (("one", ("factor", "x")),), (("one", ("factor", "x")), ("scale", ()))
    for parts, tolerance in ((linear, 1e-9), (summed, 0.02)):
        fitted = fit(settings, parts)
        errors, _ = fitted.left_out()
        again = [
            float(row["log_energy"] - fit(settings.drop(index=place), parts).predict(settings.loc[[place]])[0][0])
            for place, row in settings.iterrows()
        ]
        assert errors == pytest.approx(np.array(again), abs=tolerance * np.abs(again).max() + 1e-9)
    assert fit(settings, summed).coefficients[-1] == pytest.approx(np.log(2), abs=0.1)


def test_a_level_that_is_not_measured_is_not_predicted() -> None:
    runs = _measured(200, 0.05, seed=2)
    fewer = runs[(runs["precision"] != "int8") & (runs["n_gpus"] != 3)]
    table = grid_prediction(fewer, *FILES, confidence=0.95).table()
    lacking = (table["precision"] == "int8") | (table["n_gpus"] == 3)
    assert (table.loc[lacking, "status"] == "cannot be predicted").all()
    assert table.loc[lacking, PREDICTED].isna().all()
    both = table[(table["precision"] == "int8") & (table["n_gpus"] == 3)].iloc[0]
    assert "no setting with duplicated replicas, 3 GPUs is measured" in both["reason"]
    assert "no setting with int8 is measured" in both["reason"]
    assert (table.loc[~lacking, "status"] != "cannot be predicted").all()
    assert table.loc[~lacking, "reason"].isna().all()


def test_few_settings_predict_nothing_and_say_so() -> None:
    runs = _measured(6, 0.05, seed=2)
    table = grid_prediction(runs, *FILES, confidence=0.95).table()
    assert table["status"].value_counts().to_dict() == {"cannot be predicted": 2106, "measured": 6}
    assert table["reason"].dropna().str.contains("too few").all()
    assert grid_models(runs, confidence=0.95).table()["reason"].notna().all()
    assert grid_left_out(runs, confidence=0.95).table().empty
    folds = grid_folds(runs, *FILES, STATS, **FOLDS).table()
    assert folds["reason"].notna().all()
    with pytest.raises(AnalysisError, match="none of 0 runs"):
        grid_prediction(runs.iloc[:0], *FILES, confidence=0.95)


def test_folds_of_measured_and_predicted_settings_stay_apart() -> None:
    runs = _measured(150, 0.0, seed=3)
    folds = grid_folds(runs, *FILES, STATS, **FOLDS).table().set_index(["source", "model"])
    truth = pd.Series([law(row, row.batch_wait_s) for row in _GRID.itertuples()])
    table = grid_prediction(runs, *FILES, confidence=0.95).table()
    for source in ("measured", "predicted"):
        values = truth[(table["status"] == source) & (table["model"] == "llama-3.2-3b")]
        row = folds.loc[(source, "llama-3.2-3b")]
        assert row["n_settings"] == len(values)
        assert row["published_max_over_min_fold"] == 293.5
        assert row["max_over_min_fold"] == pytest.approx(values.max() / values.min(), rel=1e-2)
        low, high = np.percentile(np.log(values), [5, 95])
        assert row["p95_over_p5_fold"] == pytest.approx(np.exp(high - low), rel=1e-2)
        assert row["p95_over_p5_fold_low"] <= row["p95_over_p5_fold"] <= row["p95_over_p5_fold_high"]


def test_folds_in_the_published_accounting_count_the_machine_for_each_process() -> None:
    runs = _measured(150, 0.0, seed=3)
    n = runs["n_gpus"].astype(float)
    # GPUs without work draw what waiting ones do, and only waiting takes time: four times 120 W for each second.
    waited = runs["waited_s"].astype("Float64").fillna(0).to_numpy(float)
    speed = np.divide(
        runs["n_output_tokens_measured"].to_numpy(float), waited, out=np.full(len(n), 1e12), where=waited > 0
    )
    runs = runs.assign(idle_power_w=WAITING_W * n, throughput_tokens_per_s=speed)
    folds = grid_folds(runs, *FILES, STATS, **FOLDS).table().set_index(["source", "model"])
    counted = pd.Series(
        [
            row.n_gpus**2 * (law(row, 0.0) + WAITING_W * 4 / row.n_gpus * row.batch_wait_s / (row.batch_size * 128))
            for row in _GRID.itertuples()
        ]
    )
    table = grid_prediction(runs, *FILES, confidence=0.95).table()
    values = counted[(table["status"] == "predicted") & (table["model"] == "llama-3.2-3b")]
    row = folds.loc[("predicted, published accounting", "llama-3.2-3b")]
    assert row["n_settings"] == len(values)
    assert row["max_over_min_fold"] == pytest.approx(values.max() / values.min(), rel=2e-2)
    assert row["energy_p50_j_per_output_token"] == pytest.approx(values.median(), rel=2e-2)


def test_predicted_folds_hold_the_residual_of_a_measurement() -> None:
    runs = _measured(150, 0.1, seed=3)
    row = grid_folds(runs, *FILES, STATS, **FOLDS).table().set_index(["source", "model"]).loc[("predicted", "all")]
    rest = grid_prediction(runs, *FILES, confidence=0.95).table().query("status == 'predicted'")
    rng = np.random.default_rng(9)
    truth = np.array([law(one, one.batch_wait_s) for one in _GRID.itertuples()])[rest.index]
    new = truth * np.exp(0.1 * rng.standard_normal(len(truth)))
    assert row["p95_over_p5_fold_low"] <= np.percentile(new, 95) / np.percentile(new, 5) <= row["p95_over_p5_fold_high"]
    assert row["max_over_min_fold"] > rest[PREDICTED].max() / rest[PREDICTED].min()


def test_left_out_settings_are_those_of_the_model() -> None:
    runs = _measured(100, 0.05, seed=5)
    table = grid_left_out(runs, confidence=0.95).table()
    assert len(table) == 100
    assert table["of_grid"].all()
    inside = (table[f"{PREDICTED}_low"] <= table[MEASURED]) & (table[MEASURED] <= table[f"{PREDICTED}_high"])
    assert (inside == table["inside"]).all()
    chosen = grid_models(runs, confidence=0.95).table().query("chosen").iloc[0]
    assert chosen["interval_coverage_fraction"] == pytest.approx(inside.mean(), abs=0.01)
