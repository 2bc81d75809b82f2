"""Size of the model, of its numbers and of the machine: laws, ratios and shares worked out by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from inference_energy.analyse.model_size import model_size
from inference_energy.analyse.quantisation import quantisation
from inference_energy.analyse.right_size import right_size
from inference_energy.errors import AnalysisError
from inference_energy.models.cells import ONCE, OVER, WITHIN, cells
from inference_energy.models.sizes import (
    AICC,
    AT_A_BILLION,
    CONSTANT,
    ENERGY_RATIO,
    EXPONENT,
    EXPONENTIAL,
    EXPONENTIAL_OVER,
    FEWER_GPUS,
    FEWEST_JOULES,
    LEFT_OUT,
    LINEAR,
    MACHINE,
    ONE_GPU,
    PER_TEN_BILLION,
    POWER,
    PRECISION_SHARE,
    R2,
    SLOPE,
    SMALLER_MODEL,
    SPEED_RATIO,
    TAKING_PART,
)
from inference_energy.tables import RUNS, conform
from inference_energy.tables.speed import ARCHITECTURES

BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 200, "seed": 1}
SIZES = {"a": 0.5, "b": 1.0, "c": 3.0, "d": 8.0, "e": 34.0, "f": 70.0}


def architectures() -> pd.DataFrame:
    rows = [{"model": name, "n_parameters": int(size * 1e9)} for name, size in SIZES.items()]
    return conform(pd.DataFrame(rows, columns=ARCHITECTURES.names), ARCHITECTURES)


def runs_of(*rows: dict[str, object]) -> pd.DataFrame:
    common = {"campaign": "c", "study": "model_size", "precision": "bfloat16", "n_gpus": 1, "cycle": 1, "sitting": "s"}
    common |= {"batch_size": 32, "n_input_tokens": 100, "n_output_tokens": 100, "throughput_tokens_per_s": 100.0}
    made = [common | {"setting": f"x{index}"} | row for index, row in enumerate(rows)]
    return conform(pd.DataFrame(made, columns=RUNS.names), RUNS)


def _one(table: pd.DataFrame, **levels: object) -> pd.Series:
    for name, level in levels.items():
        table = table[table[name].isna() if level is None else table[name] == level]
    assert len(table) == 1, table
    return table.iloc[0]


# --- cells ---------------------------------------------------------------------------------------


def _scattered(seed: int = 1, sittings: tuple[str, ...] = ("s", "t")) -> pd.DataFrame:
    """Three models in each sitting, with a host's effect and noise."""
    rng = np.random.default_rng(seed)
    rows = [
        {"model": model, "sitting": sitting, "cycle": place + 1, "energy_j_per_output_token": float(energy)}
        for place, sitting in enumerate(sittings)
        for model, energy in zip(
            "abc", np.array([1.0, 2.0, 6.0]) * 1.3**place * np.exp(rng.normal(0, 0.02, 3)), strict=True
        )
    ]
    return runs_of(*rows)


def test_a_ratio_of_cells_is_that_of_least_squares_with_a_level_for_each_sitting() -> None:
    runs = _scattered()
    row = cells(runs, ["model"], "energy_j_per_output_token").ratio(([("c",)], [("a",)]), 0.95)
    frame = pd.DataFrame({"y": np.log(runs["energy_j_per_output_token"]), "model": runs["model"].astype(str)})
    fit = smf.ols("y ~ model + sitting", frame.assign(sitting=runs["sitting"].astype(str))).fit()
    low, high = fit.conf_int().loc["model[T.c]"]
    assert row["estimate"] == pytest.approx(np.exp(fit.params["model[T.c]"]))
    assert [row["estimate_low"], row["estimate_high"]] == pytest.approx(np.exp([low, high]))
    assert (row["compared"], row["n_runs"], row["note"]) == (WITHIN, 4, None)


def test_a_host_falls_out_of_a_ratio_that_one_sitting_holds() -> None:
    runs = runs_of(
        {"model": "a", "sitting": "s", "energy_j_per_output_token": 1.0},
        {"model": "b", "sitting": "s", "energy_j_per_output_token": 2.0},
        {"model": "a", "sitting": "t", "energy_j_per_output_token": 3.0},
        {"model": "b", "sitting": "t", "energy_j_per_output_token": 6.0},
        {"model": "b", "sitting": "u", "energy_j_per_output_token": 50.0},  # a host without the other changes nothing
    )
    row = cells(runs, ["model"], "energy_j_per_output_token").ratio(([("b",)], [("a",)]), 0.95)
    assert [row["estimate"], row["estimate_low"], row["estimate_high"]] == pytest.approx([2.0, 2.0, 2.0])


def test_one_sitting_is_within_a_sitting_without_an_interval() -> None:
    row = cells(_scattered(sittings=("s",)), ["model"], "energy_j_per_output_token").ratio(([("c",)], [("a",)]), 0.95)
    assert (row["compared"], row["note"]) == (WITHIN, f"no interval, because {ONCE}")
    assert np.isnan(row["estimate_low"])


def test_cells_that_no_sitting_ties_together_are_compared_over_sittings() -> None:
    runs = runs_of(
        *({"model": "a", "sitting": s, "energy_j_per_output_token": e} for s, e in (("s", 1.0), ("t", 1.2))),
        *({"model": "b", "sitting": s, "energy_j_per_output_token": e} for s, e in (("u", 2.0), ("v", 2.4))),
    )
    row = cells(runs, ["model"], "energy_j_per_output_token").ratio(([("b",)], [("a",)]), 0.95)
    # Each pair of logs differs by log 1.2: their variance is (log 1.2)² / 2, that of a mean of two half of it.
    half = stats.t.ppf(0.975, 2) * np.log(1.2) / 2 * np.sqrt(2)
    assert row["compared"] == OVER
    assert row["estimate"] == pytest.approx(2.0)
    assert np.log(row["estimate_high"] / 2) == pytest.approx(half)


def test_ratios_multiply_and_their_logs_shares_add_up() -> None:
    found = cells(_scattered(), ["model"], "energy_j_per_output_token")
    a, b, c = ([("a",)], [("b",)], [("c",)])
    first, second, whole = (found.ratio(each, 0.95)["estimate"] for each in ((b, a), (c, b), (c, a)))
    assert first * second == pytest.approx(whole)
    shares = [found.share(each, (c, a), 0.95) for each in ((b, a), (c, b))]
    assert sum(share["estimate"] for share in shares) == pytest.approx(1)
    assert shares[0]["estimate"] == pytest.approx(np.log(first) / np.log(whole))


def test_a_share_is_covered_as_often_as_it_should_be() -> None:
    part, whole = ([("b",)], [("a",)]), ([("c",)], [("a",)])
    runs, rng, hits = _scattered(), np.random.default_rng(1), 0
    for _ in range(120):
        noisy = runs.assign(energy_j_per_output_token=[1.0, 2.0, 6.0] * 2 * np.exp(rng.normal(0, 0.02, 6)))
        share = cells(noisy, ["model"], "energy_j_per_output_token").share(part, whole, 0.95)
        hits += share["estimate_low"] <= np.log(2) / np.log(6) <= share["estimate_high"]
    assert 0.9 <= hits / 120 <= 0.99


def test_one_cycle_leaves_an_estimate_without_interval_and_no_share() -> None:
    found = cells(_scattered(sittings=("s",)), ["model"], "energy_j_per_output_token")
    row = found.ratio(([("b",)], [("a",)]), 0.95)
    assert row["estimate"] == pytest.approx(2, rel=0.1)
    assert np.isnan(row["estimate_low"])
    assert row["note"] == f"no interval, because {ONCE}"
    share = found.share(([("b",)], [("a",)]), ([("c",)], [("a",)]), 0.95)
    assert "estimate" not in share
    assert share["note"] == ONCE


# --- the model -----------------------------------------------------------------------------------


def _laws(law: Any, models: str = "abcde", **levels: object) -> pd.DataFrame:
    rows = [{"model": name, "energy_j_per_output_token": law(SIZES[name])} | levels for name in models]
    return model_size(runs_of(*rows), architectures(), **BOOTSTRAP).table()


@pytest.mark.parametrize(
    ("law", "energy", "numbers"),
    [
        (LINEAR, lambda n: 0.02 + 0.003 * n, {CONSTANT: 0.02, SLOPE: 0.003}),
        (POWER, lambda n: 0.02 * n**0.7, {AT_A_BILLION: 0.02, EXPONENT: 0.7}),
        (EXPONENTIAL, lambda n: 0.02 * np.exp(0.05 * n), {CONSTANT: 0.02, PER_TEN_BILLION: np.exp(0.5)}),
    ],
)
def test_each_law_finds_its_numbers_and_foretells_best(law: str, energy: Any, numbers: dict[str, float]) -> None:
    table = _laws(energy)
    table = table[table["gpus"] == ONE_GPU]
    for quantity, value in numbers.items():
        assert _one(table, law=law, quantity=quantity)["estimate"] == pytest.approx(value, rel=1e-4)
    errors = table[table["quantity"] == LEFT_OUT].set_index("law")["estimate"]
    assert errors[law] == pytest.approx(1, abs=1e-4)
    assert errors.drop(law).min() > 1.05
    assert table[table["quantity"] == AICC].set_index("law")["estimate"].idxmin() == law


def test_a_power_laws_numbers_and_left_out_error_are_those_of_a_line_through_logs() -> None:
    noise = dict(zip("abcde", [1.05, 0.9, 1.1, 1.0, 0.97], strict=True))
    energies = {name: 0.02 * SIZES[name] ** 0.7 * factor for name, factor in noise.items()}
    table = _laws(lambda n: energies[next(name for name in SIZES if SIZES[name] == n)])
    table = table[(table["gpus"] == ONE_GPU) & (table["law"] == POWER)]
    x, y = np.log([SIZES[name] for name in energies]), np.log(list(energies.values()))
    fit = stats.linregress(x, y)
    half = stats.t.ppf(0.975, 3) * fit.stderr
    row = _one(table, quantity=EXPONENT)
    assert [row["estimate"], row["estimate_low"], row["estimate_high"]] == pytest.approx(
        [fit.slope, fit.slope - half, fit.slope + half], rel=1e-3
    )
    rss = float(((y - fit.intercept - fit.slope * x) ** 2).sum())
    assert _one(table, quantity=AICC)["estimate"] == pytest.approx(5 * np.log(rss / 5) + 6 + 24, rel=1e-4)
    errors = []
    for out in range(5):
        rest = np.arange(5) != out
        line = stats.linregress(x[rest], y[rest])
        errors.append(abs(line.intercept + line.slope * x[out] - y[out]))
    row = _one(table, quantity=LEFT_OUT)
    assert row["estimate"] == pytest.approx(np.exp(np.mean(errors)), rel=1e-4)
    half = stats.t.ppf(0.975, 4) * np.std(errors, ddof=1) / np.sqrt(5)
    assert row["estimate_high"] == pytest.approx(np.exp(np.mean(errors) + half), rel=1e-3)


def test_the_exponential_is_held_against_the_others_model_by_model() -> None:
    table = _laws(lambda n: 0.02 * n**0.7)
    table = table[table["gpus"] == ONE_GPU]
    errors = table[table["quantity"] == LEFT_OUT].set_index("law")["estimate"]
    over = _one(table, law=POWER, quantity=EXPONENTIAL_OVER)
    assert over["estimate"] == pytest.approx(errors[EXPONENTIAL] / errors[POWER])
    assert over["estimate"] > 1


def test_the_straight_lines_r2_is_the_squared_correlation_with_fishers_interval() -> None:
    table = _laws(lambda n: 0.02 * n**0.7)
    sizes = [SIZES[name] for name in "abcde"]
    r = np.corrcoef(sizes, np.array(sizes) ** 0.7)[0, 1]
    row = _one(table[table["gpus"] == ONE_GPU], quantity=R2)
    assert row["estimate"] == pytest.approx(r**2)
    assert row["estimate_low"] == pytest.approx(np.tanh(np.arctanh(r) - 1.959964 / np.sqrt(2)) ** 2, rel=1e-5)


def test_models_count_on_the_gpus_on_which_they_take_least_and_four_models_are_too_few() -> None:
    rows = [
        {"model": name, "n_gpus": n, "energy_j_per_output_token": 0.01 * SIZES[name] * (2.0 if n == 2 else 1.0)}
        for name, n in [*itertools.product("abcd", (1, 2)), ("f", 2)]
    ]
    table = model_size(runs_of(*rows), architectures(), **BOOTSTRAP).table()
    assert set(table["gpus"]) == {FEWEST_JOULES}  # on one GPU there are four models
    assert set(table["n_models"]) == {5}
    assert _one(table, law=POWER, quantity=EXPONENT)["estimate"] == pytest.approx(1, rel=0.2)
    assert model_size(runs_of(*rows[:4]), architectures(), **BOOTSTRAP).table().empty
    other = runs_of(*rows).assign(study="batching")
    assert model_size(other, architectures(), **BOOTSTRAP).table().empty


# --- the machine ---------------------------------------------------------------------------------


def _machines() -> pd.DataFrame:
    rows = [
        {"model": model, "n_gpus": n, "cycle": cycle, "sitting": f"s{cycle}", "idle_power_w": 80.0 * n}
        | {"energy_j_per_output_token": energy * cycle, "throughput_tokens_per_s": speed}
        for cycle in (1, 2)
        for model, n, energy, speed in (("d", 1, 1.0, 100.0), ("d", 4, 1.6, 300.0), ("e", 1, 4.0, 20.0))
    ]
    return runs_of(*rows)


def test_fewer_gpus_save_less_where_the_rest_of_a_machine_is_billed() -> None:
    table = right_size(_machines(), architectures(), confidence=0.95).table()
    fewer = {"choice": FEWER_GPUS, "model": "d", "n_gpus": 1, "n_gpus_over": 4}
    row = _one(table, quantity=ENERGY_RATIO, accounting=TAKING_PART, **fewer)
    assert [row["estimate"], row["estimate_low"], row["estimate_high"]] == pytest.approx([1 / 1.6] * 3)
    assert row["compared"] == WITHIN
    # On one GPU three more idle at 80 W while 100 tokens come in a second: 2.4 J more for each.
    row = _one(table, quantity=ENERGY_RATIO, accounting=MACHINE, **fewer)
    assert row["estimate"] == pytest.approx(np.sqrt((1.0 + 2.4) / 1.6 * (2.0 + 2.4) / 3.2))
    assert _one(table, quantity=SPEED_RATIO, **fewer)["estimate"] == pytest.approx(1 / 3)
    smaller = {"choice": SMALLER_MODEL, "model": "d", "over_model": "e", "n_gpus": 1}
    assert _one(table, quantity=ENERGY_RATIO, accounting=TAKING_PART, **smaller)["estimate"] == pytest.approx(0.25)


def test_idle_power_in_a_started_engine_is_not_taken_for_that_of_an_empty_gpu() -> None:
    runs = _machines().assign(process_position=pd.array([0, 1, 1, 0, 1, 1], dtype="Int64"))
    runs["idle_power_w"] = runs["idle_power_w"].where(runs["process_position"] == 0, 500.0)
    with_loaded = right_size(runs, architectures(), confidence=0.95).table()
    pd.testing.assert_frame_equal(with_loaded, right_size(_machines(), architectures(), confidence=0.95).table())


def test_a_campaign_without_the_study_has_no_rows_and_an_energy_of_nothing_is_refused() -> None:
    other = _machines().assign(study="batching")
    assert right_size(other, architectures(), confidence=0.95).table().empty
    assert quantisation(other, confidence=0.95).table().empty
    nothing = _machines().assign(energy_j_per_output_token=0.0)
    for question in (
        lambda: right_size(nothing, architectures(), confidence=0.95),
        lambda: quantisation(nothing.assign(study="quantisation"), confidence=0.95),
        lambda: model_size(nothing, architectures(), **BOOTSTRAP),
    ):
        with pytest.raises(AnalysisError, match=r"is 0\. Expected: a value above 0"):
            question()


# --- number formats ------------------------------------------------------------------------------

ENERGIES = {("bfloat16", 2): 2.0, ("bfloat16", 1): 1.6, ("float8", 2): 1.5, ("float8", 1): 0.8, ("int4", 1): 1.7}


def formats(noise: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    rows = [
        {"study": "quantisation", "model": "d", "precision": precision, "n_gpus": n, "batch_size": batch}
        | {"cycle": cycle, "sitting": f"s{cycle}", "throughput_tokens_per_s": 100.0 / energy}
        | {"energy_j_per_output_token": energy / batch * 1.1**cycle * float(np.exp(noise * rng.normal()))}
        for cycle in (1, 2)
        for batch in (8, 64)
        for (precision, n), energy in ENERGIES.items()
    ]
    return runs_of(*rows)


def _change(table: pd.DataFrame, before: tuple[str, int], after: tuple[str, int], **levels: object) -> pd.Series:
    names = {"precision_from": before[0], "n_gpus_from": before[1], "precision_to": after[0], "n_gpus_to": after[1]}
    return _one(table, **({"quantity": ENERGY_RATIO, "batch_size": None} | names | levels))


def test_a_change_of_format_and_gpus_is_the_product_of_its_parts() -> None:
    table = quantisation(formats(), confidence=0.95).table()
    both = _change(table, ("bfloat16", 2), ("float8", 1))
    gpus = _change(table, ("bfloat16", 2), ("bfloat16", 1))
    bits = _change(table, ("bfloat16", 1), ("float8", 1))
    assert (both["part"], gpus["part"], bits["part"]) == ("both", "gpus", "precision")
    assert [row["estimate"] for row in (both, gpus, bits)] == pytest.approx([0.4, 0.8, 0.5])
    assert _change(table, ("bfloat16", 2), ("float8", 2))["estimate"] == pytest.approx(0.75)
    assert _change(table, ("bfloat16", 1), ("int4", 1), batch_size=8)["estimate"] == pytest.approx(1.7 / 1.6)
    share = _change(table, ("bfloat16", 2), ("float8", 1), quantity=PRECISION_SHARE)
    assert share["estimate"] == pytest.approx(np.log(0.5) / np.log(0.4))
    assert _change(table, ("bfloat16", 1), ("float8", 1), quantity=SPEED_RATIO)["estimate"] == pytest.approx(2)


def test_a_format_that_only_another_study_measured_is_taken_and_other_workloads_are_not() -> None:
    runs = formats()
    moved = (runs["precision"] == "bfloat16") & (runs["n_gpus"] == 1)
    elsewhere = runs.assign(study=runs["study"].mask(moved, "engine"))
    shown = quantisation(elsewhere, confidence=0.95).table()
    pd.testing.assert_frame_equal(shown, quantisation(runs, confidence=0.95).table())
    longer = elsewhere.assign(n_output_tokens=elsewhere["n_output_tokens"].mask(moved, 500))
    found = quantisation(longer, confidence=0.95).table()
    assert len(found) < len(shown)
    assert not (found["precision_from"].eq("bfloat16") & found["n_gpus_from"].eq(1)).any()


def test_changes_that_nobody_asks_about_have_no_rows() -> None:
    table = quantisation(formats(), confidence=0.95).table()
    columns = ["precision_from", "n_gpus_from", "precision_to", "n_gpus_to"]
    changes = set(table[columns].itertuples(index=False, name=None))
    assert changes == {
        ("bfloat16", 1, "float8", 1),
        ("bfloat16", 1, "int4", 1),
        ("bfloat16", 2, "bfloat16", 1),
        ("bfloat16", 2, "float8", 1),
        ("bfloat16", 2, "float8", 2),
        ("bfloat16", 2, "int4", 1),
        ("float8", 2, "float8", 1),
    }


def test_a_share_of_what_may_be_no_change_is_missing_and_says_so() -> None:
    table = quantisation(formats(noise=0.3), confidence=0.95).table()
    whole = _change(table, ("bfloat16", 2), ("int4", 1), batch_size=8)
    assert whole["estimate_low"] < 1 < whole["estimate_high"]
    share = _change(table, ("bfloat16", 2), ("int4", 1), batch_size=8, quantity=PRECISION_SHARE)
    assert np.isnan(share["estimate"])
    assert share["note"] == "the whole change may be nil"


def test_the_spread_is_pooled_over_settings_and_batch_sizes_are_taken_together() -> None:
    runs = formats(noise=0.05)
    table = quantisation(runs, confidence=0.95).table()
    frame = pd.DataFrame({"y": np.log(runs["energy_j_per_output_token"]), "sitting": runs["sitting"].astype(str)})
    frame["cell"] = runs["precision"].str.cat([runs["n_gpus"].astype(str), runs["batch_size"].astype(str)]).astype(str)
    fit = smf.ols("y ~ cell - 1 + sitting", frame).fit()
    test = fit.t_test("cell[float818] / 2 + cell[float8164] / 2 - cell[bfloat1618] / 2 - cell[bfloat16164] / 2 = 0")
    row = _change(table, ("bfloat16", 1), ("float8", 1))
    assert row["estimate"] == pytest.approx(np.exp(test.effect[0]))
    assert [row["estimate_low"], row["estimate_high"]] == pytest.approx(np.exp(test.conf_int()[0]))
    assert row["n_runs"] == 8
