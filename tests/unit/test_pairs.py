"""Each run beside its baseline: pairs worked out by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from inference_energy.errors import AnalysisError
from inference_energy.pairs import DECODING, paired
from inference_energy.tables import RUNS, conform


def _runs(*rows: dict[str, object]) -> pd.DataFrame:
    common = {"study": "s", "model": "m", "precision": "float16", "batch_size": 8, "decoding": "greedy"}
    made = [common | {"setting": f"x{i}", "cycle": 1, "sitting": "a"} | row for i, row in enumerate(rows)]
    return conform(pd.DataFrame(made, columns=RUNS.names), RUNS)


def _energy(value: float, **levels: object) -> dict[str, object]:
    return {"energy_j_per_output_token": value, **levels}


def test_a_baseline_of_the_same_sitting_goes_first() -> None:
    runs = _runs(
        _energy(1.0),
        _energy(4.0, study="other"),  # the geometric mean of both is 2
        _energy(9.0, sitting="b"),
        _energy(3.0, decoding="top_k", top_k=5),
        _energy(3.0, decoding="top_k", top_k=5, sitting="b"),
        _energy(6.0, decoding="top_k", top_k=5, sitting="c"),  # no baseline there: (1 * 4 * 9) ** (1 / 3)
        _energy(6.0, decoding="top_k", top_k=5, batch_size=1),  # none at all
        {"decoding": "top_k", "top_k": 7},  # no energy
    )
    found = paired(runs, DECODING, runs["decoding"] == "greedy")
    assert found["over_baseline_ratio"].tolist() == pytest.approx([1.5, 1 / 3, 6 / 36 ** (1 / 3)], rel=1e-12)
    assert found["matched"].tolist() == ["sitting", "sitting", "campaign"]
    assert found["n_baseline_runs"].tolist() == [2, 1, 3]


def test_other_factors_must_be_equal_and_missing_levels_are_equal() -> None:
    runs = _runs(
        _energy(2.0, sampling_temperature=None, precision="float32"),
        _energy(3.0, precision="int8"),
        _energy(5.0, precision="int8", decoding="top_k"),
    )
    found = paired(runs, ["precision"], runs["precision"] == "float32")
    assert found["over_baseline_ratio"].tolist() == pytest.approx([1.5], rel=1e-12)


def test_without_a_baseline_there_are_no_pairs() -> None:
    runs = _runs(_energy(1.0), _energy(2.0))
    assert paired(runs, DECODING, runs["decoding"] == "none").empty
    assert paired(runs.iloc[:0], DECODING, runs["decoding"] == "none").empty


@pytest.mark.parametrize("energy", [0.0, -1.0])
def test_an_energy_that_is_not_above_0_is_refused(energy: float) -> None:
    runs = _runs(_energy(1.0), _energy(energy, decoding="top_k"))
    with pytest.raises(AnalysisError, match=r"table runs: energy_j_per_output_token of s/x1 in cycle 1 is"):
        paired(runs, DECODING, runs["decoding"] == "greedy")


def test_an_unknown_factor_is_refused() -> None:
    runs = _runs(_energy(1.0))
    with pytest.raises(AnalysisError, match="'decodin' is no factor"):
        paired(runs, ["decodin"], runs["decoding"] == "greedy")
