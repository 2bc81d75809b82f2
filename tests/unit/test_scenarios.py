"""Fold, CV and the share of the ideal scenario, worked out by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from inference_energy.analyse.accountings import accountings
from inference_energy.analyse.scenarios import CV, ENERGY, FOLD, IDEAL_SHARE, named, scenarios
from inference_energy.tables import RUNS, conform

BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 2000, "seed": 1}
SPREAD = pd.DataFrame(
    [("Llama-3.2-1B", "4.3", "61.35", "10.69")],
    columns=["model", "fold_x", "cv_pct", "ideal_a1_over_realistic_mean_pct"],
    dtype="string",
)
CODE = {"R1": (0.1, 1), "R2": (0.1, 2), "R3": (0.5, 1), "R4": (0.5, 2), "R5": (0.8, 1), "R6": (0.8, 2)}
TEXT = {"R1": (0.1, 4), "R2": (0.1, 8), "R3": (0.5, 16), "R4": (0.5, 8), "R5": (0.8, 10), "R6": (0.8, 16)}


def _runs(*cycles: dict[str, float]) -> pd.DataFrame:
    """Energies of the code's scenarios in each cycle."""
    rows = []
    for cycle, energies in enumerate(cycles, start=1):
        for name, energy in energies.items():
            delay, n = CODE.get(name, (None, 1))
            rows.append(
                {
                    "campaign": "c",
                    "study": "scenarios_code",
                    "setting": name,
                    "cycle": cycle,
                    "model": "llama-3.2-1b",
                    "batch_size": 8,
                    "n_gpus": n,
                    "n_visible_gpus": 4,
                    "traffic": "constant" if delay else "none",
                    "delay_max_s": delay,
                    "idle_power_w": 80.0 * n,
                    "parallelism": "replicas_duplicated" if n > 1 else "none",
                    "energy_j_per_output_token": energy,
                    "throughput_tokens_per_s": 100.0,
                }
            )
    return conform(pd.DataFrame(rows, columns=RUNS.names), RUNS)


def _table(runs: pd.DataFrame) -> pd.DataFrame:
    return scenarios(runs, accountings(runs).table(), SPREAD, **BOOTSTRAP).table()


def _row(table: pd.DataFrame, quantity: str, accounting: str = "generated") -> pd.Series:
    chosen = table[(table["quantity"] == quantity) & (table["accounting"] == accounting)]
    assert len(chosen) == 1
    return chosen.iloc[0]


WHOLE = {"A1": 0.35} | {f"R{i}": float(i) for i in range(1, 7)}


def test_fold_cv_and_share_of_one_cycle() -> None:
    table = _table(_runs(WHOLE))
    assert _row(table, FOLD)["estimate"] == pytest.approx(6.0, rel=1e-12)
    assert _row(table, CV)["estimate"] == pytest.approx(3.5**0.5 / 3.5, rel=1e-12)  # variance of 1 to 6: 17.5 / 5
    share = _row(table, IDEAL_SHARE)
    assert share["estimate"] == pytest.approx(0.1, rel=1e-12)
    assert share[["n_scenarios", "n_cycles", "n_runs"]].tolist() == [6, 1, 7]
    assert pd.isna(share["estimate_low"])
    assert share["note"] == "not all in two cycles: no interval"
    assert _row(table, FOLD)["published_ratio"] == 4.3
    assert _row(table, CV)["published_ratio"] == pytest.approx(0.6135, rel=1e-12)
    assert share["published_ratio"] == pytest.approx(0.1069, rel=1e-12)


def test_counting_alone_moves_the_spread() -> None:
    equal = {f"R{i}": 1.0 for i in range(1, 7)}
    table = _table(_runs(equal))
    assert _row(table, FOLD)["estimate"] == pytest.approx(1.0, rel=1e-12)
    assert _row(table, FOLD, "answered")["estimate"] == pytest.approx(2.0, rel=1e-12)
    assert _row(table, FOLD, "published")["estimate"] == pytest.approx(4.0, rel=1e-12)


def test_with_two_cycles_the_interval_is_the_range_of_whole_cycles() -> None:
    table = _table(_runs(WHOLE, WHOLE | {"R6": 12.0}))
    row = _row(table, FOLD)
    assert row[["estimate", "estimate_low", "estimate_high"]].tolist() == pytest.approx([9.0, 6.0, 12.0], rel=1e-12)
    assert pd.isna(row["note"])
    doubled = _row(_table(_runs(WHOLE, {name: 2 * value for name, value in WHOLE.items()})), FOLD)
    assert doubled[["estimate_low", "estimate_high"]].tolist() == pytest.approx([6.0, 6.0], rel=1e-12)  # drift cancels


def test_a_cycle_in_progress_gives_no_interval() -> None:
    row = _row(_table(_runs(WHOLE, {"A1": 0.35, "R1": 3.0})), FOLD)
    assert row["estimate"] == pytest.approx(6.0 / 2.0, rel=1e-12)  # R1 and R2 at 2, R6 at 6
    assert pd.isna(row["estimate_low"])
    assert row["n_cycles"] == 1


def test_missing_scenarios_are_named() -> None:
    table = _table(_runs({"R1": 1.0, "R3": 2.0}))
    fold = _row(table, FOLD)
    assert fold["estimate"] == pytest.approx(2.0, rel=1e-12)
    assert fold["note"].startswith("without R2, R4, R5, R6")
    share = _row(table, IDEAL_SHARE)
    assert pd.isna(share["estimate"])
    assert share["note"] == "there is no A1, R2, R4, R5, R6"
    alone = _table(_runs({"R1": 1.0}))
    assert pd.isna(_row(alone, CV)["estimate"])
    assert _row(alone, ENERGY)["note"] == "measured in one cycle: no interval"


def test_both_versions_are_named_by_their_levels() -> None:
    code = named(_runs(WHOLE))
    assert code["scenario"].tolist() == list(WHOLE)
    text = _runs(WHOLE).assign(study="scenarios_text", n_gpus=4)
    text["batch_size"] = [128, *(batch for _, batch in TEXT.values())]
    assert named(text)["scenario"].tolist() == list(WHOLE)
    odd = _runs({"R1": 1.0}).assign(delay_max_s=0.3)
    assert named(odd)["scenario"].tolist() == ["other"]


def test_a_campaign_without_scenarios_has_no_rows() -> None:
    assert _table(_runs(WHOLE).assign(study="grid")).empty
    assert _table(_runs(WHOLE).iloc[:0]).empty
