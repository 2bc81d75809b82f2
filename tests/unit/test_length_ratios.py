"""Workloads over shorter ones, and the curve of prompts at once, by hand and beside SciPy."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from inference_energy.analyse.length_ratios import length_ratios
from inference_energy.analyse.prompts_curve import prompts_curve
from inference_energy.errors import AnalysisError
from inference_energy.tables import RUNS, conform

RATIO = "level_over_baseline_ratio"
ENDS = [f"{RATIO}_low", f"{RATIO}_high"]


def _run(energy: float, n_in: int, n_out: int, sitting: str = "a", study: str = "model_size", **levels: Any) -> Any:
    run = {"study": study, "cycle": 1, "model": "m", "precision": "bfloat16", "sitting": sitting, "n_gpus": 1}
    run |= {"n_input_tokens": n_in, "n_output_tokens": n_out, "batch_size": 32} | levels
    name = "_".join(str(run[key]) for key in ("model", "n_input_tokens", "n_output_tokens", "batch_size", "n_gpus"))
    return run | {"setting": name, "n_prompts": run["batch_size"], "energy_j_per_prompt": energy}


def _frame(*rows: Any) -> pd.DataFrame:
    return conform(pd.DataFrame(list(rows), columns=RUNS.names), RUNS)


def _ratios(*rows: Any) -> pd.DataFrame:
    return length_ratios(_frame(*rows), confidence=0.95, n_bootstrap=200, seed=1).table()


def _lengths(model: str, sitting: str, scale: float, long_prompt: float, long_answer: float) -> list[Any]:
    energies = {(100, 100): scale, (900, 100): scale * long_prompt, (100, 900): scale * long_answer}
    return [_run(energy, *lengths, sitting, model=model) for lengths, energy in energies.items()]


def test_long_prompts_and_answers_over_short_ones_within_sittings() -> None:
    """Sittings scale everything: that must fall out. Spread pooled over four settings of two pairs each."""
    rows = _ratios(
        *_lengths("m", "a", 1.0, 2.0, 9.0),
        *_lengths("m", "b", 10.0, 2.2, 9.0),
        *_lengths("n", "a", 5.0, 1.6, 12.0),
        *_lengths("n", "b", 0.5, 1.6, 12.0),
    )
    over_short = rows[rows["baseline"] == "100 in, 100 out"].set_index(["level", "model"])
    prompt, answer = over_short.loc["900 in, 100 out"], over_short.loc["100 in, 900 out"]
    mean = np.log([2.0, 2.2]).mean()
    assert prompt[RATIO].to_dict() == pytest.approx(
        {"m": np.exp(mean), "n": 1.6, "all": np.exp((mean + np.log(1.6)) / 2)}
    )
    spread = np.sqrt(np.log([2.0, 2.2]).var(ddof=1) / 4)
    half = stats.t.ppf(0.975, 4) * spread / np.sqrt(2)
    assert prompt.loc["m", ENDS].tolist() == pytest.approx([np.exp(mean - half), np.exp(mean + half)])
    assert prompt.loc["m", "energy_j_per_prompt"] == pytest.approx(np.sqrt(2.0 * 22.0))
    assert (prompt.loc["m", "n_pairs"], prompt.loc["m", "n_sitting_pairs"]) == (2, 2)
    assert prompt.loc["m", "interval_by"] == "t within sittings"
    logs = np.log([9.0, 12.0])
    half = stats.t.ppf(0.975, 1) * logs.std(ddof=1) / np.sqrt(2)
    expected = [np.exp(logs.mean()), np.exp(logs.mean() - half), np.exp(logs.mean() + half)]
    assert answer.loc["all", [RATIO, *ENDS]].tolist() == pytest.approx(expected, rel=1e-4)
    assert (answer.loc["all", "n_settings"], answer.loc["all", "interval_by"]) == (2, "over models")
    assert rows["comparison"].drop_duplicates().tolist() == ["long_answer", "long_prompt", "answer_or_prompt"]
    across = rows[rows["comparison"] == "answer_or_prompt"].set_index("model")
    assert set(across["baseline"]) == {"900 in, 100 out"}
    assert across["level"].unique().tolist() == ["100 in, 900 out"]
    assert across.loc["n", RATIO] == pytest.approx(12 / 1.6)


def test_other_gpus_and_other_studies_are_no_baseline() -> None:
    rows = _ratios(
        _run(1.0, 100, 100, n_gpus=2, parallelism="tensor"),
        _run(4.0, 900, 100),
        _run(2.0, 100, 100, model="n"),
        _run(8.0, 100, 100, study="batching"),
    )
    assert rows.empty


def test_long_context_guidance_and_prompts_at_once() -> None:
    rows = _ratios(
        _run(10.0, 300, 300, study="long_context", batch_size=1),
        _run(35.0, 50_000, 300, study="long_context", batch_size=1),
        _run(15.0, 5_000, 300, study="long_context", batch_size=1),
        _run(3.0, 135, 256, study="guidance", batch_size=64),
        _run(4.5, 875, 256, study="guidance", batch_size=64),
        *(_run(40.0 / size, 128, 128, study="prompts_at_once", batch_size=size) for size in (1, 8, 128)),
    )
    assert rows["comparison"].drop_duplicates().tolist() == ["long_context", "guidance", "prompts_at_once"]
    found = dict(zip(rows["level"], rows[RATIO], strict=True))
    assert found == pytest.approx(
        {"5000 in, 300 out": 1.5, "50000 in, 300 out": 3.5, "875 in, 256 out": 1.5}
        | {"8 prompts at once": 1 / 8, "128 prompts at once": 1 / 128}
    )
    assert set(rows.loc[rows["comparison"] == "prompts_at_once", "baseline"]) == {"1 prompt at once"}
    assert rows[ENDS].isna().all(axis=None)  # nothing was measured twice
    assert rows["note"].str.startswith("no interval, because nothing was measured twice").all()


def _at_once(sizes: Any, energies: Any, **levels: Any) -> pd.DataFrame:
    rows = [
        _run(energy, 128, 128, study="prompts_at_once", batch_size=int(size), cycle=cycle, **levels)
        for cycle, of_cycle in enumerate(np.atleast_2d(energies), start=1)
        for size, energy in zip(sizes, of_cycle, strict=True)
    ]
    return _frame(*rows)


def test_a_shared_cost_and_a_plateau_are_found() -> None:
    sizes = np.array([1, 8, 32, 128, 512])
    runs = _at_once(sizes, 2 + 30 / sizes, n_sequences_limit=256)
    row = prompts_curve(runs, confidence=0.95).table().iloc[0]
    assert row["plateau_energy_j_per_prompt"] == pytest.approx(2)
    assert row["shared_energy_j"] == pytest.approx(30)
    assert row["n_prompts_at_equal_parts"] == pytest.approx(15)
    assert row["n_prompts_near_plateau"] == pytest.approx(150)  # there 30 / 150 is a tenth of 2
    assert row["shared_cv"] == pytest.approx(0, abs=1e-9)
    assert (row["n_prompts_most"], row["n_sequences_limit"], row["n_batch_sizes"]) == (512, 256, 5)


def test_a_number_of_prompts_that_only_another_study_measured_is_taken() -> None:
    sizes = np.array([1, 8, 32, 128, 512])
    runs = _at_once(sizes, 2 + 30 / sizes)
    elsewhere = runs.assign(study=runs["study"].mask(runs["batch_size"] == 8, "quantisation"))
    for question in (prompts_curve, partial(length_ratios, n_bootstrap=200, seed=1)):
        shown = question(runs, confidence=0.95).table()
        pd.testing.assert_frame_equal(question(elsewhere, confidence=0.95).table(), shown)


def test_its_interval_is_that_of_scipy_on_means_and_not_on_runs() -> None:
    sizes = np.array([1.0, 8, 32, 128, 512])
    cycles = (2 + 30 / sizes) * np.exp(0.1 * np.random.default_rng(1).standard_normal((2, 5)))
    row = prompts_curve(_at_once(sizes, cycles), confidence=0.95).table().iloc[0]

    def law(size: np.ndarray, a: float, b: float) -> np.ndarray:
        return np.log(a + b / size)

    found, covariance = optimize.curve_fit(law, sizes, np.log(cycles).mean(axis=0), p0=(2, 30))
    half = stats.t.ppf(0.975, 3) * np.sqrt(covariance[0, 0])
    assert row["plateau_energy_j_per_prompt"] == pytest.approx(found[0], rel=1e-4)
    assert row["plateau_energy_j_per_prompt_high"] == pytest.approx(found[0] + half, rel=1e-3)


def test_few_numbers_of_prompts_and_energies_of_0_are_refused() -> None:
    row = prompts_curve(_at_once([1, 8, 32], [3.0, 2.0, 1.0]), confidence=0.95).table().iloc[0]
    assert row["note"] == "the curve cannot be fitted, because it takes 4 numbers of prompts at once, and has 3"
    assert pd.isna(row["plateau_energy_j_per_prompt"])
    assert prompts_curve(_frame(_run(1.0, 128, 128)), confidence=0.95).table().empty
    with pytest.raises(AnalysisError, match="energy_j_per_prompt of prompts_at_once"):
        prompts_curve(_at_once([1], [0.0]), confidence=0.95)
