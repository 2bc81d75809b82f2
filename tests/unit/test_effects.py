"""Effects, ranking and adjusted runs: by hand, against R and statsmodels, and by simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.anova import anova_lm

from inference_energy.analyse.adjusted_runs import adjusted_runs
from inference_energy.analyse.effects import effects
from inference_energy.analyse.factor_ranking import factor_ranking
from inference_energy.errors import AnalysisError
from inference_energy.models.deployments import deployments
from inference_energy.models.linear import fit, indicators
from inference_energy.models.terms import fit_main, main_effects
from inference_energy.tables import RUNS, conform

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = pd.read_csv(
    ROOT / "resources" / "published" / "baker_parameter_impact.csv", dtype="string", keep_default_na=False
)
RATIO = "level_over_baseline_ratio"

#: Days in hospital by duration and weight, statsmodels' test data; its first three rows are dropped, as there.
KIDNEY = """1 1 3 0 2 0 5 6 8|1 2 2 4 7 12 15 4 3 1 5 20|1 3 15 10 8 5 25 16 7 30 3 27
2 1 0 1 1 0 4 2 7 4 0 3|2 2 5 3 2 0 1 1 3 6 7 9|2 3 10 8 12 3 7 15 4 9 6 1"""


def make_runs(*rows: dict[str, Any]) -> pd.DataFrame:
    """Runs of a base setting, each with its differences; a row is a setting of its own unless it says so."""
    base = {
        "campaign": "c",
        "study": "batching",
        "cycle": 1,
        "status": "ok",
        "model": "llama-3.2-1b",
        "weights": "random",
        "precision": "float16",
        "batch_size": 8,
        "n_prompts": 8,
        "n_input_tokens": 128,
        "n_output_tokens": 128,
        "attention": "sdpa_no_cudnn",
        "decoding": "greedy",
        "parallelism": "none",
        "n_gpus": 1,
        "neighbours": "allowed",
        "traffic": "none",
        "delay_every": "batch",
        "launcher": "fork",
        "warmup": "steady",
        "sitting": "s",
        "waited_s": 0.0,
        "n_iterations": 10,
        "idle_loaded_power_w": 120.0,
    }
    made = [base | {"setting": f"x{place}"} | row for place, row in enumerate(rows)]
    for row in made:
        row["n_output_tokens_measured"] = row["n_iterations"] * row["batch_size"] * 128 * row["n_gpus"]
    return conform(pd.DataFrame(made, columns=RUNS.names), RUNS)


def energy(logarithm: float, **levels: Any) -> dict[str, Any]:
    return {"energy_j_per_output_token": float(np.exp(logarithm)), **levels}


def _known(noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """A full design whose logarithms add up: known coefficients, two sittings that differ."""
    rng = np.random.default_rng(seed)
    rows = []
    for model, of_model in (("llama-3.2-1b", 0.0), ("llama-3.2-3b", 0.7)):
        for precision, of_precision in (("float16", 0.0), ("float32", 0.8), ("int8", 1.1)):
            for batch, of_batch in ((2, 1.2), (8, 0.0), (64, -1.5)):
                own = noise * rng.standard_normal()
                for sitting, of_sitting in (("a", 0.0), ("b", 0.2)):
                    logarithm = -1 + of_model + of_precision + of_batch + of_sitting + own
                    logarithm += 0.3 * noise * rng.standard_normal()
                    levels = {"model": model, "precision": precision, "batch_size": batch, "sitting": sitting}
                    rows.append(energy(logarithm, setting=f"{model}{precision}{batch}", **levels))
    return make_runs(*rows)


def _ratios(table: pd.DataFrame) -> dict[tuple[str, str, str], float]:
    return {
        (row.factor, row.level, row.baseline): getattr(row, RATIO) for row in table.itertuples() if pd.isna(row.reason)
    }


def test_known_coefficients_are_recovered_exactly() -> None:
    found = _ratios(effects(_known(), confidence=0.95).table())
    expected = {
        ("model", "llama-3.2-3b", "llama-3.2-1b"): 0.7,
        ("precision", "float32", "float16"): 0.8,
        ("precision", "int8", "float16"): 1.1,
        ("precision", "float16", "float32"): -0.8,
        ("precision", "int8", "float32"): 0.3,
        ("batch_size", "2", "8"): 1.2,
        ("batch_size", "64", "8"): -1.5,
    }
    assert found == pytest.approx({key: float(np.exp(value)) for key, value in expected.items()}, rel=1e-9)


def test_a_balanced_two_by_two_by_hand() -> None:
    cells = {("float16", 8): (1, 3), ("float16", 64): (5, 7), ("float32", 8): (2, 4), ("float32", 64): (10, 12)}
    runs = make_runs(
        *[energy(y, precision=precision, batch_size=b) for (precision, b), ys in cells.items() for y in ys]
    )
    table = factor_ranking(runs, PUBLISHED, confidence=0.95).table().set_index("term")
    # Means of precision 4 and 7, of batch size 2.5 and 8.5, of all 5.5; squares about it sum up to 106.
    assert table.loc["precision", "explained_fraction"] == pytest.approx(8 * 1.5**2 / 106, rel=1e-12)
    assert table.loc["batch_size", "explained_fraction"] == pytest.approx(8 * 3**2 / 106, rel=1e-12)
    residual = 106 - 18 - 72
    assert table.loc["precision", "partial_explained_fraction"] == pytest.approx(18 / (18 + residual), rel=1e-12)
    # Together: the cell means 2, 6, 3, 11 are 1 off the sum of effects, so 8 * 1 of the 16 left.
    assert table.loc["batch_size x precision", "explained_fraction"] == pytest.approx(8 / 106, rel=1e-12)
    assert table.loc["batch_size x precision", "n_parameters"] == 1
    assert table.loc[["batch_size", "precision"], "order"].tolist() == [1, 2]
    assert table.loc["batch_size", "levels_fold"] == pytest.approx(np.exp(6), rel=1e-12)
    assert table.loc["batch_size", "published_impact"] == "High: 10×"


def _kidney() -> pd.DataFrame:
    cells = [cell.split() for line in KIDNEY.splitlines() for cell in line.split("|")]
    rows = [(d, w, np.log(float(days) + 1)) for d, w, *every in cells for days in every]
    frame = pd.DataFrame(rows, columns=["duration", "weight", "log_energy"])
    return frame.assign(setting=[f"s{place}" for place in range(len(frame))])


def test_type_ii_sums_of_squares_are_those_of_r() -> None:
    data = _kidney()
    assert len(data) == 57

    def main(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
        return {name: indicators(rows[name], "1", ("1", "2", "3")[: rows[name].nunique()]) for name in _FACTORS}

    def joint(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
        terms = main(rows)
        product = {name: terms["weight"][name] * terms["duration"]["2"] for name in terms["weight"]}
        return terms | {"both": pd.DataFrame(product)}

    # SOURCE: car::Anova(lm(log(Days + 1) ~ Duration * Weight), type = "II"), as quoted in statsmodels' tests.
    plain, together = fit(data, main), fit(data, joint)
    assert plain.test("duration")[:2] == (1, pytest.approx(3.067066, abs=1e-4))
    assert plain.test("weight")[:2] == (2, pytest.approx(13.27205, abs=1e-4))
    assert together.test("both")[:2] == (2, pytest.approx(0.1905093, abs=1e-4))


_FACTORS = ("duration", "weight")


def test_one_run_a_setting_is_ordinary_least_squares_with_hc3() -> None:
    data = _kidney()
    model = fit(data, lambda rows: {name: indicators(rows[name], "1", ("1", "2", "3")) for name in ("weight",)})
    reference = sm.OLS(model.response, model.design).fit(cov_type="HC3")
    n = len(data)
    assert model.coefficients == pytest.approx(reference.params, rel=1e-9)
    np.testing.assert_allclose(model.covariance, reference.cov_params() * (n - 1) / n, rtol=1e-8, atol=1e-12)
    _, _, wald, p_value = model.test("weight")
    tested = reference.f_test(np.eye(3)[1:], cov_p=model.covariance)
    assert wald == pytest.approx(float(tested.fvalue), rel=1e-8)
    assert p_value == pytest.approx(float(stats.f.sf(float(tested.fvalue), 2, n - 1)), rel=1e-8)


def test_the_covariance_is_the_jackknife_over_settings_by_refitting() -> None:
    runs = deployments(_known(noise=0.1, seed=3))
    model = fit_main(runs)
    names = runs["setting"].unique()
    refits = np.array([fit_main(runs[runs["setting"] != name]).coefficients for name in names])
    changes = refits - model.coefficients
    expected = (len(names) - 1) / len(names) * changes.T @ changes
    np.testing.assert_allclose(model.covariance, expected, rtol=1e-6, atol=1e-12)


def test_type_ii_of_the_whole_model_agrees_with_statsmodels() -> None:
    runs = _known(noise=0.2, seed=5).drop(index=[0, 1, 9])  # not balanced
    model = fit_main(deployments(runs))
    frame = model.used.assign(weight=model.design[:, 0] ** 2)
    formula = "log_energy ~ C(model) + C(precision) + C(batch_size) + C(sitting)"
    reference = anova_lm(sm.WLS.from_formula(formula, frame, weights=frame["weight"]).fit(), typ=2)
    for term in ("model", "precision", "batch_size"):
        assert model.test(term)[1] == pytest.approx(reference.loc[f"C({term})", "sum_sq"], rel=1e-8)


def test_a_setting_counts_once_however_often_it_was_measured() -> None:
    once = [energy(y, precision=p) for p, ys in (("float16", (0, 1, 2)), ("int8", (3, 4, 8))) for y in ys]
    often = [*once, *[energy(8, precision="int8", setting="x5") for _ in range(20)]]
    few, many = (effects(make_runs(*rows), confidence=0.95).table() for rows in (once, often))
    assert _ratios(few) == pytest.approx(_ratios(many), rel=1e-9)
    row = many[(many["level"] == "int8") & (many["baseline"] == "float16")].iloc[0]
    assert (row["n_settings"], row["n_runs"]) == (3, 23)
    assert row[RATIO] == pytest.approx(np.exp(4))
    assert row[f"{RATIO}_low"] == pytest.approx(
        few[(few["level"] == "int8") & (few["baseline"] == "float16")].iloc[0][f"{RATIO}_low"], rel=1e-9
    )


def test_holm_by_stepping_down() -> None:
    table = effects(_known(noise=0.5, seed=2), confidence=0.95).table()
    tested = table[table["holm_p_value"].notna()]
    assert len(tested) == 5  # not the rows against the second baseline
    ordered, running, m = np.sort(tested["p_value"]), 0.0, len(tested)
    by_hand = {}
    for place, p_value in enumerate(ordered):
        running = max(running, min(1.0, (m - place) * p_value))
        by_hand[p_value] = running
    assert tested["holm_p_value"].tolist() == pytest.approx([by_hand[p] for p in tested["p_value"]], rel=1e-12)


def test_intervals_cover_the_truth() -> None:
    truth = {("model", "llama-3.2-3b"): 0.7, ("precision", "float32"): 0.8, ("batch_size", "64"): -1.5}
    inside = []
    for seed in range(40):
        table = effects(_known(noise=0.2, seed=seed), confidence=0.95).table()
        first = table[table["baseline"] != "float32"].set_index(["factor", "level"])
        inside += [
            first.loc[key, f"{RATIO}_low"] <= np.exp(value) <= first.loc[key, f"{RATIO}_high"]
            for key, value in truth.items()
        ]
    assert 0.91 <= np.mean(inside) <= 0.99


def test_a_real_interaction_is_found_and_an_unreal_one_is_not() -> None:
    runs = _known(noise=0.05, seed=1)
    plain = factor_ranking(runs, PUBLISHED, confidence=0.95).table().set_index("term")
    assert plain.loc["batch_size x precision", "holm_p_value"] > 0.05
    steeper = (runs["precision"] == "int8") & (runs["batch_size"] == 64)
    bent = runs.assign(energy_j_per_output_token=runs["energy_j_per_output_token"].where(~steeper, lambda e: e / 3))
    found = factor_ranking(conform(bent, RUNS), PUBLISHED, confidence=0.95).table().set_index("term")
    assert found.loc["batch_size x precision", "holm_p_value"] < 0.05
    assert found.loc["batch_size x precision", "n_missing_cells"] == 0
    reason = found.loc["precision x traffic", "reason"]
    assert reason == "fewer than two levels of traffic are measured in more than one setting"


def test_levels_without_a_number_say_why() -> None:
    runs = pd.concat(
        [
            _known(noise=0.1),
            make_runs(
                energy(0.1, setting="alone", parallelism="tensor", n_gpus=2),
                energy(0.2, setting="t1", decoding="multinomial", precision="tf32"),
                energy(0.3, setting="t2", decoding="multinomial", precision="tf32", batch_size=2),
            ),
        ],
        ignore_index=True,
    )
    table = effects(runs, confidence=0.95).table()
    row = table[table["baseline"] != "float32"].set_index("level")
    assert "measured in one setting only" in row.loc["tensor parallelism, 2 GPUs", "reason"]
    assert row.loc["int4", "reason"] == "int4 is not measured in this campaign"
    assert "only together with" in row.loc["tf32", "reason"]
    assert "only together with" in row.loc["multinomial", "reason"]
    numbers = table[table["reason"].notna()][[RATIO, f"{RATIO}_low", f"{RATIO}_high", "p_value", "holm_p_value"]]
    assert numbers.isna().all(axis=None)
    assert pd.isna(row.loc["int8", "reason"])


def test_bad_input_is_refused_and_thin_input_has_reasons() -> None:
    with pytest.raises(AnalysisError, match="none of 0 runs"):
        effects(make_runs().iloc[:0], confidence=0.95)
    with pytest.raises(AnalysisError, match="is 0"):
        effects(make_runs({"energy_j_per_output_token": 0.0}), confidence=0.95)
    with pytest.raises(AnalysisError, match="unknown parameters"):
        factor_ranking(make_runs(energy(0.0)), PUBLISHED.assign(parameter="x"), confidence=0.95)
    for thin in (make_runs(energy(0.0)), make_runs(energy(0.0), energy(1.0, precision="int8"))):
        assert effects(thin, confidence=0.95).table()[RATIO].isna().all()
        assert factor_ranking(thin, PUBLISHED, confidence=0.95).table()["reason"].notna().all()
        assert adjusted_runs(thin).table().empty


def test_method_studies_are_no_deployments() -> None:
    runs = make_runs(
        *[energy(0.0), energy(0.0, launcher="cold"), energy(0.0, warmup="forward_passes")],
        *[energy(0.0, neighbours="none"), energy(0.0, attention="sdpa"), energy(0.0), {"status": "failed"}],
    )
    assert deployments(runs)["setting"].tolist() == ["x0", "x5"]


def test_levels_and_waits_in_words() -> None:
    levels = {"traffic": "constant", "delay_min_s": 0.1, "delay_max_s": 0.2, "waited_s": 1.5}
    row = deployments(make_runs(energy(0.0, parallelism="replicas", n_gpus=2, n_prompts=64, **levels))).iloc[0]
    assert row["traffic"] == "constant, 0.1 to 0.2 s per batch"
    assert row["parallelism"] == "replicas, 2 GPUs"
    assert row["prompts"] == "a pass of several batches"  # 32 prompts a process, batches of 8
    assert row["batch_wait_s"] == pytest.approx(0.15)
    assert row["wait_gpu_s_per_output_token"] == pytest.approx(1.5 * 2 / (10 * 8 * 128 * 2))


def test_adjusted_runs_keep_their_own_effect_and_residual() -> None:
    runs = _known()
    points = adjusted_runs(runs).table()
    of_precision = points[points["term"] == "precision"]
    expected = {"float16": 1.0, "float32": np.exp(0.8), "int8": np.exp(1.1)}
    assert of_precision["over_baseline_ratio"].tolist() == pytest.approx(
        [expected[level] for level in of_precision["first_level"]], rel=1e-9
    )
    both = points[points["term"] == "batch_size x precision"].set_index(["first_level", "second_level"])
    assert both.loc[("64", "int8"), "over_baseline_ratio"].to_numpy() == pytest.approx(np.exp(-1.5 + 1.1), rel=1e-9)


def test_the_model_has_a_column_for_every_level_but_baselines() -> None:
    terms = main_effects(deployments(_known()))
    assert {name: list(block) for name, block in terms.items()} == {
        "model": ["llama-3.2-3b"],
        "precision": ["float32", "int8"],
        "batch_size": ["2", "64"],
        "sitting": ["b"],
    }
