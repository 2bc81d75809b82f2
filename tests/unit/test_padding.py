"""Static batches with padding: energy per token of each kind by hand, ratios, and the shape of a curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from inference_energy.analyse.padding import padding
from inference_energy.analyse.padding_runs import padding_runs
from inference_energy.analyse.padding_shape import padding_shape
from inference_energy.tables import RUNS, conform
from inference_energy.tables.phases import PADDING_RUNS

BATCHES = (1, 2, 4, 8, 16, 32, 64)


def run(batch: int, n_output: int, energy: float, sitting: str = "s1", order: str = "drawn") -> dict[str, Any]:
    """A run of 64 prompts of 100 tokens; a doubling of the batch adds 10 tokens of padding to each prompt."""
    padded = 100 + (10 * np.log2(batch) if order == "drawn" else 0)
    return {
        "study": "padding",
        "setting": f"b{batch}_{order}_{n_output}",
        "cycle": int(sitting[-1]),
        "sitting": sitting,
        "model": "m",
        "precision": "bfloat16",
        "batch_size": batch,
        "batch_order": order,
        "n_prompts": 64,
        "n_output_tokens": n_output,
        "output_length_cv": 0.0 if n_output == 1 else 0.64,
        "energy_j_per_prompt": energy,
        "n_prompts_measured": 64,
        "n_effective_input_tokens_measured": 6400,
        "n_input_tokens_measured": 64 * padded,
        "n_output_tokens_measured": 64 * n_output,
        "n_computed_output_tokens_measured": 64 * (n_output if n_output == 1 else n_output + 10 * np.log2(batch)),
    }


def table_of(*rows: dict[str, Any]) -> pd.DataFrame:
    """The table `padding_runs` of made-up runs."""
    return padding_runs(conform(pd.DataFrame(list(rows), columns=RUNS.names), RUNS)).table()


def row_of(table: pd.DataFrame, **levels: Any) -> pd.Series:
    """The row with these levels; None: missing."""
    for name, value in levels.items():
        table = table[table[name].isna() if value is None else table[name].eq(value).fillna(value=False)]
    assert len(table) == 1, (levels, len(table))
    return table.iloc[0]


def test_energy_is_divided_by_each_kind_of_token() -> None:
    table = table_of(run(4, 1, 12.0), run(4, 51, 62.0))
    prefill = row_of(table, phase="prefill")
    assert prefill["energy_j_per_effective_input_token"] == pytest.approx(0.12)
    assert prefill["energy_j_per_computed_input_token"] == pytest.approx(0.1)
    assert prefill["computed_over_effective_input_ratio"] == pytest.approx(1.2)
    whole = row_of(table, phase="generation")
    assert whole["energy_j_per_output_token"] == pytest.approx(62 / 51)
    assert whole["energy_j_per_computed_output_token"] == pytest.approx(62 / 71)
    assert whole["energy_j_per_computed_token"] == pytest.approx(62 / (120 + 71))
    decode = row_of(table, phase="decode")
    assert decode["energy_j_per_prompt"] == pytest.approx(50.0)
    assert decode["energy_j_per_output_token"] == pytest.approx(1.0)
    assert decode["energy_j_per_computed_output_token"] == pytest.approx(50 / 70)
    assert decode["energy_j_per_effective_input_token"] == pytest.approx(0.5)
    assert pd.isna(decode["energy_j_per_computed_input_token"])


def test_decoding_takes_the_prefill_of_the_same_batch_order_and_sitting() -> None:
    table = table_of(
        run(4, 1, 12.0), run(4, 1, 10.0, order="by_length"), run(4, 1, 99.0, "s2"),
        run(4, 51, 62.0), run(4, 51, 55.0, order="by_length"), run(8, 51, 62.0),
    )  # fmt: skip
    decode = table[table["phase"] == "decode"].set_index("setting")
    assert decode.loc["b4_drawn_51", "energy_j_per_prompt"] == pytest.approx(50.0)
    assert decode.loc["b4_by_length_51", "energy_j_per_prompt"] == pytest.approx(45.0)
    assert decode.loc["b8_drawn_51", "note"] == "what it is compared with is not measured"


def _curve(energy: dict[int, float], hosts: tuple[float, ...] = (1.0, 1.1)) -> pd.DataFrame:
    rows = [
        run(batch, 1, value * host, f"s{place}")
        for place, host in enumerate(hosts, 1)
        for batch, value in energy.items()
    ]
    rows += [run(16, 1, energy[16] * 0.8 * host, f"s{place}", "by_length") for place, host in enumerate(hosts, 1)]
    return table_of(*rows)


U = {batch: float(np.exp(0.1 * (np.log2(batch) - 2) ** 2)) for batch in BATCHES}  # lowest at 4
FALLING = {batch: batch**-0.5 for batch in BATCHES}


def test_ratios_to_the_smallest_the_lowest_and_the_drawn_batch() -> None:
    table = padding(_curve(U), confidence=0.95).table()
    table = table[table["quantity"] == "energy_j_per_effective_input_token"]
    level = row_of(table, factor=None, batch_size=4, batch_order="drawn")
    assert level["estimate"] == pytest.approx(0.01 * 1.1**0.5)
    over_one = row_of(table, factor="batch_size", batch_size=16)
    assert over_one["baseline"] == "1"
    assert over_one[["estimate", "estimate_low", "estimate_high"]].tolist() == pytest.approx([1.0, 1.0, 1.0])
    rise = row_of(table, factor="lowest", batch_size=64)
    assert rise["baseline"] == "4"
    assert rise["estimate"] == pytest.approx(np.exp(1.6))
    falling = padding(_curve(FALLING), confidence=0.95).table()
    falling = falling[falling["quantity"] == "energy_j_per_effective_input_token"]
    lowest = row_of(falling, factor="lowest", batch_size=16)  # of the smaller batches, not of itself
    assert lowest["baseline"] == "8"
    assert lowest["estimate"] == pytest.approx(2**-0.5)
    assert set(falling.loc[falling["factor"] == "lowest", "batch_size"]) == {8, 16, 32, 64}  # of three smaller ones
    assert row_of(table, factor="batch_order")["estimate"] == pytest.approx(0.8)
    assert (table.loc[table["factor"].notna(), "n_sitting_pairs"] == 2).all()


def _noisy(energy: dict[int, float], scale: float = 0.02) -> pd.DataFrame:
    """Two sittings with noise, as rows of `padding_runs`."""
    rng = np.random.default_rng(3)
    found = _curve(energy)
    noise = np.exp(scale * rng.standard_normal(len(found)))
    return conform(found.assign(energy_j_per_effective_input_token=found["energy_j_per_effective_input_token"] * noise),
                   PADDING_RUNS)  # fmt: skip


def _shape(runs: pd.DataFrame) -> pd.Series:
    table = padding_shape(runs, confidence=0.95).table()
    return row_of(table, quantity="energy_j_per_effective_input_token")


def test_the_parabola_is_that_of_other_software() -> None:
    runs = _noisy(U)
    found = _shape(runs)
    drawn = runs[runs["batch_order"] == "drawn"]
    frame = pd.DataFrame(
        {
            "y": np.log(drawn["energy_j_per_effective_input_token"].astype(float)),
            "x": np.log2(drawn["batch_size"].astype(float)),
            "sitting": drawn["sitting"].astype(str),
        }
    )
    fit = smf.ols("y ~ C(sitting) + x + I(x**2)", frame).fit()
    at_largest = fit.t_test("x + 12 * I(x ** 2) = 0")
    at_smallest = fit.t_test("x = 0")
    assert np.log(found["at_largest_per_doubling_ratio"]) == pytest.approx(at_largest.effect[0])
    assert np.log(found["at_largest_per_doubling_ratio_low"]) == pytest.approx(at_largest.conf_int()[0, 0])
    assert found["curvature_p_value"] == pytest.approx(fit.pvalues["I(x ** 2)"])
    assert found["parabola_p_value"] == pytest.approx(max(at_smallest.pvalue, at_largest.pvalue) / 2)
    cells = smf.ols("y ~ C(sitting) + C(x)", frame).fit()
    below = [
        min(-cells.t_test(f"C(x)[T.{inner}.0] = 0").tvalue.item(),
            cells.t_test(f"C(x)[T.6.0] - C(x)[T.{inner}.0] = 0").tvalue.item())
        for inner in range(1, 6)
    ]  # fmt: skip
    assert found["inner_p_value"] == pytest.approx(5 * stats.t.sf(max(below), cells.df_resid))
    assert found["u_p_value"] == max(found["parabola_p_value"], found["inner_p_value"])
    assert found["shape"] == "U"
    assert found["n_prompts_at_minimum"] == pytest.approx(4, rel=0.1)
    assert found["n_prompts_at_minimum_low"] < 4 < found["n_prompts_at_minimum_high"]
    assert found["n_prompts_lowest"] == 4


@pytest.mark.parametrize(
    ("energy", "shape"),
    [
        (FALLING, "falls"),
        ({batch: batch**0.5 for batch in BATCHES}, "rises"),
        ({batch: 1 / value for batch, value in U.items()}, "inverted U"),
        (dict.fromkeys(BATCHES, 1.0), "undecided"),
    ],
)
def test_a_curve_that_does_not_fall_and_rise_is_no_u(energy: dict[int, float], shape: str) -> None:
    found = _shape(_noisy(energy))
    assert found["shape"] == shape
    assert found["u_p_value"] > 0.05
    assert pd.isna(found["n_prompts_at_minimum"])


def test_a_plateau_fools_the_parabola_but_is_no_u() -> None:
    found = _shape(_noisy({batch: 1 + 1 / batch for batch in BATCHES}))
    assert found["parabola_p_value"] < 0.05
    assert found["inner_p_value"] > 0.05
    assert found["shape"] == "levels off"


def test_with_one_cycle_a_parabola_alone_makes_no_u() -> None:
    """A plateau, nothing measured twice: the second test cannot be made, and the first is fooled."""
    rng = np.random.default_rng(5)
    made = _curve({batch: 1 + 1 / batch for batch in (*BATCHES, 128)}, hosts=(1.0,))
    energy = made["energy_j_per_effective_input_token"] * np.exp(0.005 * rng.standard_normal(len(made)))
    found = _shape(conform(made.assign(energy_j_per_effective_input_token=energy), PADDING_RUNS))
    assert found["parabola_p_value"] < 0.05
    assert pd.isna(found["inner_p_value"])
    assert pd.isna(found["u_p_value"])
    assert found["shape"] != "U"


def test_too_few_batches_or_runs_are_not_fitted() -> None:
    few = _shape(_curve({batch: U[batch] for batch in (1, 4, 16)}))
    assert "a curve takes 4 batch sizes, and this one has 3" in few["note"]
    once = _shape(_curve({batch: U[batch] for batch in (1, 2, 4, 16)}, hosts=(1.0,)))
    assert "4 runs leave 1 degrees of freedom, and it takes 4" in once["note"]
    assert pd.isna(once["shape"])


def test_nothing_measured_gives_empty_tables() -> None:
    empty = table_of()
    assert empty.empty
    assert padding(empty, confidence=0.95).table().empty
    assert padding_shape(empty, confidence=0.95).table().empty
