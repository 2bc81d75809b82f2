"""Several GPUs beside one: ratios, growth and moderation worked out by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from inference_energy.analyse.accountings import accountings
from inference_energy.analyse.parallelism import ENERGY_RATIO, EXPONENT, MODERATION, THROUGHPUT_RATIO, parallelism
from inference_energy.errors import AnalysisError
from inference_energy.tables import RUNS, conform

T_1 = 12.7062  # Student's 97.5 % quantile with one degree of freedom
BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 2000, "seed": 1}
CLAIMS = pd.DataFrame(
    [("baker", "tp_2proc", "2"), ("baker", "tp_4proc", "6"), ("other", "tp_2proc", "9")],
    columns=["study", "claim_id", "value"],
    dtype="string",
)


def _run(energy: float | None, kind: str = "none", n: int = 1, **levels: object) -> dict[str, object]:
    common: dict[str, object] = {"energy_j_per_output_token": energy, "parallelism": kind, "n_gpus": n}
    return common | {"idle_power_w": 80.0 * n, "throughput_tokens_per_s": 100.0 * n, "n_prompts": 64 * n} | levels


def _runs(*rows: dict[str, object]) -> pd.DataFrame:
    common = {"campaign": "c", "study": "s", "model": "m", "precision": "float16", "batch_size": 8, "traffic": "none"}
    common |= {"cycle": 1, "sitting": "a", "n_visible_gpus": 4}
    made = [common | {"setting": f"x{i}"} | row for i, row in enumerate(rows)]
    return conform(pd.DataFrame(made, columns=RUNS.names), RUNS)


def _table(runs: pd.DataFrame) -> pd.DataFrame:
    return parallelism(runs, accountings(runs).table(), CLAIMS, **BOOTSTRAP).table()


def _row(table: pd.DataFrame, quantity: str, kind: str, accounting: str = "generated", **levels: object) -> pd.Series:
    chosen = table[
        (table["quantity"] == quantity) & (table["parallelism"] == kind) & (table["accounting"] == accounting)
    ]
    for name, level in ({"setting": "all"} | levels).items():
        chosen = chosen[chosen[name] == level]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_a_ratio_is_the_geometric_mean_of_settings_and_its_interval_that_of_their_logs() -> None:
    table = _table(
        _runs(
            _run(1.0),
            _run(1.0, "tensor", 2),
            _run(2.0, model="k"),
            _run(8.0, "tensor", 2, model="k"),
        )
    )
    row = _row(table, ENERGY_RATIO, "tensor")
    # Two settings with ratios 1 and 4: logs 0 and log 4, with a standard error of log 2.
    expected = [2.0, 2.0 / 2.0**T_1, 2.0 * 2.0**T_1]
    assert row[["estimate", "estimate_low", "estimate_high"]].tolist() == pytest.approx(expected, rel=1e-3)
    assert row[["n_gpus", "n_settings", "n_pairs", "n_sitting_pairs"]].tolist() == [2, 2, 2, 2]
    single = _row(table, ENERGY_RATIO, "tensor", setting="x3")
    assert single["estimate"] == pytest.approx(4.0, rel=1e-12)
    assert pd.isna(single["estimate_low"])
    assert single[["model", "batch_size", "note"]].tolist() == ["k", 8, "one pair: no interval"]
    assert _row(table, THROUGHPUT_RATIO, "tensor")["estimate"] == pytest.approx(2.0, rel=1e-12)


def test_every_accounting_has_a_ratio_of_its_own_and_the_published_one_its_claim() -> None:
    table = _table(_runs(_run(2.0), _run(2.0, "replicas_duplicated", 2)))
    kind = "replicas_duplicated"
    assert _row(table, ENERGY_RATIO, kind)["estimate"] == pytest.approx(1.0, rel=1e-12)
    assert _row(table, ENERGY_RATIO, kind, "answered")["estimate"] == pytest.approx(2.0, rel=1e-12)
    published = _row(table, ENERGY_RATIO, kind, "published")
    assert published["estimate"] == pytest.approx(2 * 2 * (2 + 2 * 80 / 200) / (2 + 3 * 80 / 100), rel=1e-12)
    assert published["published_ratio"] == 2.0
    assert pd.isna(_row(table, ENERGY_RATIO, kind)["published_ratio"])
    assert _row(table, THROUGHPUT_RATIO, kind, "answered")["estimate"] == pytest.approx(1.0, rel=1e-12)


def test_the_exponent_is_1_where_energy_per_token_grows_with_the_gpus() -> None:
    runs = _runs(_run(1.0), _run(2.0, "tensor", 2), _run(16.0, "tensor", 4), _run(3.0, "replicas", 3))
    table = _table(runs)
    row = _row(table, EXPONENT, "tensor")
    # log 2 / log 2 = 1 and log 16 / log 4 = 2.
    half = T_1 * 0.5
    assert row[["estimate", "estimate_low", "estimate_high"]].tolist() == pytest.approx([1.5, 1.5 - half, 1.5 + half])
    assert _row(table, EXPONENT, "replicas")["estimate"] == pytest.approx(1.0, rel=1e-12)


def test_moderation_is_the_ratio_at_batch_64_over_that_at_batch_8() -> None:
    runs = _runs(
        _run(2.0),
        _run(3.0, "tensor", 2),
        _run(0.5, batch_size=64),
        _run(1.5, "tensor", 2, batch_size=64),
    )
    table = _table(runs)
    assert _row(table, MODERATION, "tensor")["estimate"] == pytest.approx((1.5 / 0.5) / (3.0 / 2.0), rel=1e-12)
    less = _row(_table(runs.iloc[:2]), MODERATION, "tensor")
    assert pd.isna(less["estimate"])
    assert less["note"] == "no pair at both batch 8 and batch 64, all else equal"


def test_prompts_of_a_pass_must_be_equal_only_where_runs_wait() -> None:
    wait = {"traffic": "constant", "delay_min_s": 0.1, "delay_max_s": 0.2, "delay_every": "batch"}
    runs = _runs(
        _run(1.0, **wait, n_prompts=128),
        _run(3.0, "tensor", 2, **wait, n_prompts=128),
        _run(5.0, "tensor", 2, **wait, n_prompts=8),
    )
    row = _row(_table(runs), ENERGY_RATIO, "tensor")
    assert row["estimate"] == pytest.approx(3.0, rel=1e-12)
    assert row["n_pairs"] == 1


def test_a_kind_without_its_equal_on_one_gpu_says_so() -> None:
    row = _row(_table(_runs(_run(1.0), _run(2.0, "tensor", 2, precision="int8"))), ENERGY_RATIO, "tensor")
    assert pd.isna(row["estimate"])
    assert row["note"] == "no run on one GPU that is equal in all other factors"


def test_another_sitting_stands_in_only_where_its_own_has_no_baseline() -> None:
    runs = _runs(_run(1.0), _run(9.0, sitting="b"), _run(3.0, "tensor", 2), _run(6.0, "tensor", 2, sitting="z"))
    row = _row(_table(runs), ENERGY_RATIO, "tensor")
    assert row["estimate"] == pytest.approx((3.0 * 2.0) ** 0.5, rel=1e-12)  # 6 over the geometric mean of 1 and 9
    assert row[["n_pairs", "n_sitting_pairs"]].tolist() == [2, 1]


def test_a_campaign_on_one_gpu_has_no_rows() -> None:
    assert _table(_runs(_run(1.0), _run(None, "tensor", 2))).empty
    assert _table(_runs(_run(1.0)).iloc[:0]).empty


def test_scenarios_of_the_code_stand_aside() -> None:
    assert _table(_runs(_run(1.0), _run(2.0, "replicas_duplicated", 2, study="scenarios_code"))).empty


def test_an_energy_of_zero_is_refused() -> None:
    runs = _runs(_run(1.0), _run(2.0, "tensor", 2))
    counted = accountings(runs).table().assign(energy_j_per_output_token=0.0)
    with pytest.raises(AnalysisError, match="a value above 0"):
        parallelism(runs, counted, CLAIMS, **BOOTSTRAP)
