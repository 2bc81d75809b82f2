"""Fronts by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from inference_energy.analyse.pareto import on_front, pareto
from inference_energy.errors import AnalysisError
from inference_energy.tables.speed import UTILISATION

BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 500, "seed": 1}


def _run(setting: str, energy: float, latency_s: float, cycle: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "study": "batching",
        "setting": setting,
        "cycle": cycle,
        "model": "m",
        "precision": "float16",
        "batch_size": 8,
        "n_input_tokens": 128,
        "n_output_tokens": 128,
        "parallelism": "none",
        "n_gpus": 1,
        "energy_j_per_output_token": energy,
        "latency_s": latency_s,
        "waiting_s": 0.0,
        "throughput_tokens_per_s": 100.0,
        **changes,
    }


def _table(*runs: dict[str, Any]) -> pd.DataFrame:
    return pareto(pd.DataFrame(runs, columns=UTILISATION.names), **BOOTSTRAP).table().set_index("setting")


def test_a_front_by_hand() -> None:
    #            a: fastest   b: in between   c: beaten by b   d: most frugal   e: as slow as d, costs more
    energy = np.array([[5.0, 3.0, 4.0, 1.0, 2.0]])
    latency = np.array([[1.0, 2.0, 2.5, 4.0, 4.0]])
    assert on_front(energy, latency).tolist() == [[True, True, False, True, False]]
    assert on_front(energy[:, ::-1], latency[:, ::-1]).tolist() == [[False, True, False, True, True]]


def test_settings_are_means_over_runs_from_fast_to_slow() -> None:
    table = _table(_run("b", 1.0, 4.0), _run("a", 2.0, 1.0, 1), _run("a", 4.0, 3.0, 2), _run("c", 5.0, 5.0))
    assert table.index.tolist() == ["a", "b", "c"]
    assert table.loc["a", ["energy_j_per_output_token", "latency_s", "n_runs"]].tolist() == [3.0, 2.0, 2]
    assert table["on_front"].tolist() == [True, True, False]


def test_far_apart_the_front_is_sure_and_close_together_it_is_not() -> None:
    scatter = [_run("a", 2.0 * up, 1.0 * up, cycle) for cycle, up in ((1, 1.05), (2, 1 / 1.05))]
    table = _table(*scatter, _run("far", 200.0, 100.0), _run("twin", 2.01, 1.01))
    assert table.loc["far", "front_fraction"] == 0
    assert not table.loc["twin", "on_front"]
    assert 0.2 < table.loc["twin", "front_fraction"] < 0.8
    assert table.loc["far", "energy_j_per_output_token_low"] < 200 < table.loc["far", "energy_j_per_output_token_high"]


def test_the_interval_is_the_pooled_scatter() -> None:
    # Two runs 10 % above and below: residuals of +- log 1.1 times sqrt(2 / (2 - 1)); a single run draws one of them.
    scatter = [_run("a", 2.0 * up, 1.0, cycle) for cycle, up in ((1, 1.1), (2, 1 / 1.1))]
    row = _table(*scatter, _run("b", 10.0, 9.0)).loc["b"]
    assert row["energy_j_per_output_token_high"] == pytest.approx(10 * 1.1 ** np.sqrt(2), rel=1e-9)
    assert row["energy_j_per_output_token_low"] == pytest.approx(10 / 1.1 ** np.sqrt(2), rel=1e-9)


def test_without_a_repetition_there_is_no_uncertainty() -> None:
    table = _table(_run("a", 2.0, 1.0), _run("b", 1.0, 2.0))
    assert table["on_front"].all()
    assert table["front_fraction"].isna().all()
    assert table["latency_s_low"].isna().all()


def test_models_have_fronts_of_their_own_and_other_lengths_have_none() -> None:
    table = _table(
        _run("a", 2.0, 1.0),
        _run("b", 9.0, 9.0, model="n"),
        _run("c", 1.0, 3.0),
        _run("long", 0.1, 0.1, n_output_tokens=500),
    )
    assert table["on_front"].tolist() == [True, True, True]
    assert "long" not in table.index


def test_duplicated_replicas_are_no_deployment() -> None:
    assert _table(_run("a", 2.0, 1.0), _run("d", 0.1, 0.1, parallelism="replicas_duplicated")).index.tolist() == ["a"]


def test_waiting_is_kept_apart() -> None:
    table = _table(_run("a", 2.0, 1.0), _run("w", 3.0, 1.5, waiting_s=7.0, traffic="constant"))
    assert table.loc["w", ["latency_s", "waiting_s"]].tolist() == [1.5, 7.0]


def test_no_run_is_an_empty_table() -> None:
    assert _table().empty


@pytest.mark.parametrize("wrong", [0.0, -1.0])
def test_an_energy_that_is_not_above_zero_is_refused(wrong: float) -> None:
    with pytest.raises(AnalysisError, match="a value above 0"):
        _table(_run("a", wrong, 1.0))
