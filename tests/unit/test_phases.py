"""Prefill and decoding apart, by hand: energies, times, ratios, and why something is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from inference_energy.analyse.phase_runs import phase_runs
from inference_energy.analyse.phases import phases
from inference_energy.tables import RUNS, conform

KNOBS: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 300, "seed": 1}


def run(n_output: int, energy: float, seconds: float, sitting: str = "s1", **levels: Any) -> dict[str, Any]:
    """A run of ten prompts of 100 tokens; `energy` (J) and `seconds` are those of one prompt."""
    named = {"precision": "float32", "model": "m", "engine": "transformers", "n_input_tokens": 100} | levels
    return {
        "study": "phases",
        "setting": f"{named['model']}_{named['engine']}_{named['precision']}_{named['n_input_tokens']}_{n_output}",
        "cycle": int(sitting[-1]),
        "sitting": sitting,
        "batch_size": 1,
        "n_output_tokens": n_output,
        "energy_j": energy * 10,
        "energy_j_per_prompt": energy,
        "measured_s": seconds * 10,
        "n_iterations": 10,
        "n_prompts_measured": 10,
        "n_input_tokens_measured": 10 * named["n_input_tokens"],
        "counter_over_power_ratio": 1.0,
        "prefill_s": np.nan,
    } | named


def table_of(*rows: dict[str, Any]) -> pd.DataFrame:
    """The table `phase_runs` of made-up runs."""
    return phase_runs(conform(pd.DataFrame(list(rows), columns=RUNS.names), RUNS)).table()


def one(table: pd.DataFrame, **levels: Any) -> pd.Series:
    """The row with these levels; None: missing."""
    for name, value in levels.items():
        table = table[table[name].isna() if value is None else table[name].eq(value).fillna(value=False)]
    assert len(table) == 1, (levels, len(table))
    return table.iloc[0]


def test_decoding_is_what_64_tokens_take_more_than_one() -> None:
    table = table_of(run(1, 20.0, 0.1), run(64, 146.0, 0.73))
    prefill = one(table, phase="prefill", method="one token")
    assert prefill[["energy_j_per_prompt", "energy_j_per_input_token", "power_mean_w"]].tolist() == pytest.approx(
        [20.0, 0.2, 200.0]
    )
    decode = one(table, phase="decode", method="difference")
    assert decode["energy_j_per_output_token"] == pytest.approx(126.0 / 63)
    assert decode["duration_s_per_output_token"] == pytest.approx(0.01)
    assert decode["power_mean_w"] == pytest.approx(200.0)
    assert pd.isna(decode["energy_j_per_input_token"])
    assert pd.isna(prefill["energy_j_per_output_token"])
    assert decode["matched"] == "sitting"


def test_the_difference_is_within_a_sitting_where_there_is_one() -> None:
    table = table_of(run(1, 20.0, 0.1), run(1, 40.0, 0.1, "s2"), run(64, 146.0, 0.73), run(64, 166.0, 0.73, "s3"))
    decode = table[table["method"] == "difference"].set_index("sitting")
    assert decode.loc["s1", "energy_j_per_prompt"] == pytest.approx(126.0)
    assert decode.loc["s3", "energy_j_per_prompt"] == pytest.approx(166.0 - (20.0 * 40.0) ** 0.5)
    assert decode["matched"].tolist() == ["sitting", "campaign"]


def test_the_time_stamp_splits_a_run_and_both_parts_add_up_to_the_counter() -> None:
    stamped = run(64, 146.0, 0.93) | {"prefill_s": 3.0, "prefill_energy_j": 500.0, "counter_over_power_ratio": 1.02}
    table = table_of(run(1, 50.0, 0.29), stamped)
    prefill, decode = (one(table, phase=phase, method="time stamp") for phase in ("prefill", "decode"))
    assert prefill["energy_j_per_prompt"] == pytest.approx(51.0)
    assert prefill["energy_j_per_prompt"] + decode["energy_j_per_prompt"] == pytest.approx(146.0)
    assert prefill["duration_s_per_prompt"] == pytest.approx(0.3)
    assert decode["duration_s_per_output_token"] == pytest.approx(0.63 / 63)


def test_a_short_prefill_has_a_time_but_no_energy() -> None:
    table = table_of(run(1, 2.0, 0.02), run(64, 146.0, 0.73) | {"prefill_s": 0.2, "prefill_energy_j": 30.0})
    for phase in ("prefill", "decode"):
        row = one(table, phase=phase, method="time stamp")
        assert pd.isna(row["energy_j_per_prompt"])
        assert "shorter than 0.1 s" in row["note"]
    assert one(table, phase="prefill", method="time stamp")["duration_s_per_prompt"] == pytest.approx(0.02)
    without = one(table_of(run(64, 146.0, 0.73)), phase="decode", method="time stamp")
    assert "does not say when" in without["note"]


def test_a_difference_that_cannot_be_taken_says_why() -> None:
    alone = one(table_of(run(64, 146.0, 0.73)), method="difference")
    assert alone["note"] == "what it is compared with is not measured"
    less = one(table_of(run(1, 20.0, 0.1), run(64, 19.0, 0.73)), method="difference")
    assert pd.isna(less["energy_j_per_output_token"])
    assert "as much or more" in less["note"]


def _campaign() -> pd.DataFrame:
    """Two sittings, s2 at 1.1 times s1; int8 over float32: 2 in prefill, 3 in decoding; vLLM at half of bfloat16."""
    rows = []
    for sitting, host in (("s1", 1.0), ("s2", 1.1)):
        for model, size in (("a", 1.0), ("b", 4.0)):
            for n_input in (100, 1000):
                for precision, pre, dec in (("float32", 1.0, 1.0), ("int8", 2.0, 3.0), ("bfloat16", 0.5, 0.8)):
                    for engine in ("transformers", "vllm") if precision == "bfloat16" else ("transformers",):
                        half = 0.5 if engine == "vllm" else 1.0
                        e1 = 0.01 * n_input * size * host * pre * half
                        more = 63 * size * host * dec * half
                        common = {"precision": precision, "model": model, "engine": engine, "n_input_tokens": n_input}
                        rows += [run(1, e1, 0.1, sitting, **common), run(64, e1 + more, 0.73, sitting, **common)]
    return table_of(*rows)


@pytest.fixture(scope="module")
def estimates() -> pd.DataFrame:
    return phases(_campaign(), **KNOBS).table()


def test_levels_are_geometric_means_with_a_pooled_spread(estimates: pd.DataFrame) -> None:
    row = one(
        estimates, quantity="energy_j_per_output_token", method="difference", factor=None, model="b",
        precision="float32", n_input_tokens=100,
    )  # fmt: skip
    assert row["estimate"] == pytest.approx(4 * 1.1**0.5)
    # every setting has log values 0 and ln 1.1 around its mean: s = ln 1.1 / sqrt 2, a degree of freedom each of 16
    half = stats.t.ppf(0.975, 16) * np.log(1.1) / 2**0.5 / 2**0.5
    assert np.log(row["estimate_high"] / row["estimate"]) == pytest.approx(half)
    assert row["n_pairs"] == 2


def test_formats_are_compared_in_each_phase_within_sittings(estimates: pd.DataFrame) -> None:
    for phase, quantity, ratio in (
        ("prefill", "energy_j_per_input_token", 2.0),
        ("decode", "energy_j_per_output_token", 3.0),
    ):
        rows = estimates[
            (estimates["factor"] == "precision") & (estimates["baseline"] == "float32")
            & (estimates["precision"] == "int8") & (estimates["quantity"] == quantity)
        ]  # fmt: skip
        assert (rows["phase"] == phase).all()
        assert rows["model"].tolist() == ["a", "a", "b", "b", "all"]
        assert rows["estimate"].tolist() == pytest.approx([ratio] * 5)
        assert rows["estimate_low"].tolist() == pytest.approx([ratio] * 5)  # hosts cancel
        assert rows["n_sitting_pairs"].tolist() == [2, 2, 2, 2, 8]


def test_engines_and_phases_are_compared(estimates: pd.DataFrame) -> None:
    engine = one(estimates, factor="engine", quantity="energy_j_per_output_token", model="all")
    assert engine[["engine", "baseline"]].tolist() == ["vllm", "transformers"]
    assert engine["estimate"] == pytest.approx(0.5)
    token = one(estimates, factor="phase", model="a", precision="float32", n_input_tokens=1000)
    assert token["estimate"] == pytest.approx(1 / 0.01)
    assert one(estimates, factor="phase", model="all", precision="int8")["estimate"] == pytest.approx(150.0)


def test_methods_are_compared_where_both_have_an_energy() -> None:
    rows = [
        row
        for sitting in ("s1", "s2")
        for row in (run(1, 50.0, 0.2, sitting), run(64, 176.0, 0.9, sitting) | {"prefill_s": 3.0})
    ]
    rows[1] |= {"prefill_energy_j": 400.0}
    rows[3] |= {"prefill_energy_j": 400.0}
    table = phases(table_of(*rows), **KNOBS).table()
    prefill = one(table, factor="method", quantity="energy_j_per_input_token")
    decode = one(table, factor="method", quantity="energy_j_per_output_token")
    assert [prefill["estimate"], decode["estimate"]] == pytest.approx([40 / 50, 136 / 126])
    assert "2 runs repeat a setting" in decode["note"]


def test_two_methods_in_one_run_are_no_repetition() -> None:
    """Five settings measured once: that the methods differ says nothing of how repetitions scatter."""
    rows = []
    for n_input in (100, 200, 300, 400, 500):
        rows += [run(1, 50.0, 0.2, n_input_tokens=n_input), run(64, 176.0, 0.9, n_input_tokens=n_input)]
        rows[-1] |= {"prefill_s": 2.0 + n_input / 1000}
    table = phases(table_of(*rows), **KNOBS).table()
    found = table[(table["factor"] == "method") & (table["model"] != "all") & table["estimate"].notna()]
    assert len(found) == 10
    assert found["estimate_low"].isna().all()


def test_nothing_measured_gives_empty_tables() -> None:
    empty = table_of()
    assert empty.empty
    assert phases(empty, **KNOBS).table().empty
    elsewhere = table_of(run(64, 1.0, 1.0) | {"study": "batching"})
    assert elsewhere.empty


def test_a_cell_without_energy_keeps_its_reason() -> None:
    table = phases(table_of(run(64, 146.0, 0.73)), **KNOBS).table()
    row = one(table, method="difference", quantity="energy_j_per_output_token")
    assert pd.isna(row["estimate"])
    assert row["note"] == "what it is compared with is not measured"
