"""Levels over their baselines, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from inference_energy.analyse.level_ratio import level_ratio
from inference_energy.errors import AnalysisError
from inference_energy.tables import RUNS, conform

KNOBS: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 500, "seed": 1}


def _run(
    energy: float, precision: str, batch: int, sitting: str, study: str = "batching", **levels: Any
) -> dict[str, Any]:
    model, n_in, n_out = (
        levels.get(k, v) for k, v in (("model", "m"), ("n_input_tokens", 128), ("n_output_tokens", 128))
    )
    return {
        "study": study,
        "setting": f"{model}_{precision}_{batch}_{n_in}_{n_out}",
        "cycle": 1,
        "model": model,
        "precision": precision,
        "batch_size": batch,
        "n_prompts": batch,
        "n_input_tokens": n_in,
        "n_output_tokens": n_out,
        "sitting": sitting,
        "energy_j_per_output_token": energy,
    } | levels


def _table(*rows: dict[str, Any]) -> pd.DataFrame:
    return level_ratio(conform(pd.DataFrame(list(rows), columns=RUNS.names), RUNS), **KNOBS).table()


def _row(table: pd.DataFrame, **levels: Any) -> pd.Series:
    for name, value in levels.items():
        table = table[table[name] == value]
    assert len(table) == 1, levels
    return table.iloc[0]


def _pairs(ratios: dict[int, tuple[float, ...]], level: str = "float16") -> list[dict[str, Any]]:
    """Sittings s0, s1, …: float32 at 1, 10, … J and `level` at these times the ratios."""
    return [
        _run(10.0**place * value, precision, batch, f"s{place}")
        for batch, of_batch in ratios.items()
        for place, ratio in enumerate(of_batch)
        for precision, value in (("float32", 1.0), (level, ratio))
    ]


def test_ratios_are_within_sittings_and_their_spread_is_pooled_over_settings() -> None:
    ratios = {1: (0.5, 0.6), 4: (0.4, 0.5), 16: (0.3, 0.3), 64: (0.2, 0.3)}
    table = _table(*_pairs(ratios))
    logs = {batch: np.log(values) for batch, values in ratios.items()}
    spread = np.sqrt(sum(values.var(ddof=1) for values in logs.values()) / 4)  # four settings of two runs each
    half = stats.t.ppf(0.975, 4) * spread / np.sqrt(2)
    for batch, values in logs.items():
        row = _row(table, level="float16", scope="setting", batch_size=batch)
        assert row["level_over_baseline_ratio"] == pytest.approx(np.exp(values.mean()))
        assert row["level_over_baseline_ratio_low"] == pytest.approx(np.exp(values.mean() - half))
        assert row["level_over_baseline_ratio_high"] == pytest.approx(np.exp(values.mean() + half))
        assert (row["n_pairs"], row["n_same_sitting"], row["interval_by"]) == (2, 2, "t within sittings")
        assert row["verdict"] == "less"


def test_pairs_of_one_sitting_share_its_baseline_and_count_as_one() -> None:
    """Four settings in two sittings, each run twice there: the interval is that of the sittings' means."""
    ratios = {1: (0.5, 0.6), 4: (0.4, 0.5), 16: (0.3, 0.3), 64: (0.2, 0.3)}
    once = _row(_table(*_pairs(ratios)), level="float16", scope="setting", batch_size=1)
    again = [row | {"cycle": 2} for row in _pairs(ratios) if row["precision"] == "float16"]
    row = _row(_table(*_pairs(ratios), *again), level="float16", scope="setting", batch_size=1)
    for name in ("level_over_baseline_ratio", "level_over_baseline_ratio_low", "level_over_baseline_ratio_high"):
        assert row[name] == pytest.approx(once[name])
    assert (row["n_pairs"], row["interval_by"]) == (4, "t within sittings")
    one_sitting = [row | {"sitting": "s"} for row in (*_pairs(ratios), *again)]
    row = _row(_table(*one_sitting), level="float16", scope="setting", batch_size=1)
    assert row["interval_by"] == "t over sittings"


def test_without_a_baseline_in_the_sitting_both_sides_and_their_hosts_count() -> None:
    rows = [
        *(_run(value, "float32", 8, "a") for value in (1.0, 1.1)),
        *(_run(value, "float32", 16, "a") for value in (1.0, 1.2)),
        *(_run(value, "int8", 16, "b") for value in (2.0, 2.2, 2.4)),
    ]
    row = _row(_table(*rows), level="int8", baseline="float32", scope="setting")
    groups = [np.log(values) for values in ([1.0, 1.1], [1.0, 1.2], [2.0, 2.2, 2.4])]
    freedom = sum(len(group) - 1 for group in groups)
    spread = np.sqrt(sum(((group - group.mean()) ** 2).sum() for group in groups) / freedom)
    mean, half = groups[2].mean() - groups[1].mean(), stats.t.ppf(0.975, 4) * spread * np.sqrt(1 / 3 + 1 / 2)
    assert freedom == 4
    assert row["level_over_baseline_ratio"] == pytest.approx(np.exp(mean))
    assert row["level_over_baseline_ratio_low"] == pytest.approx(np.exp(mean - half))
    assert (row["n_same_sitting"], row["interval_by"], row["verdict"]) == (0, "t over sittings", "more")


def test_over_settings_each_setting_weighs_the_same_and_batch_classes_stand_apart() -> None:
    table = _table(*_pairs({1: (0.5, 0.5, 0.5), 4: (0.4,), 8: (0.3,), 16: (0.2,), 64: (0.1,)}))
    small = _row(table, level="float16", scope="batch 8 and below")
    assert small["level_over_baseline_ratio"] == pytest.approx((0.5 * 0.4 * 0.3) ** (1 / 3))
    assert (small["n_settings"], small["n_pairs"], small["interval_by"]) == (3, 5, "t over settings")
    # Student's t with 2 degrees of freedom, 4.3027, times the standard error of the logs of 0.5, 0.4 and 0.3.
    half = 4.302653 * np.std(np.log([0.5, 0.4, 0.3]), ddof=1) / np.sqrt(3)
    mean = np.log(small["level_over_baseline_ratio"])
    assert small["level_over_baseline_ratio_low"] == pytest.approx(np.exp(mean - half), rel=1e-4)
    assert small["level_over_baseline_ratio_high"] == pytest.approx(np.exp(mean + half), rel=1e-4)
    large = _row(table, level="float16", scope="above batch 8")
    assert large["level_over_baseline_ratio"] == pytest.approx(np.sqrt(0.02))
    assert large["note"] == "no interval, because 2 of the 3 settings are measured that it takes at the least"
    assert (large["verdict"], pd.isna(large["level_over_baseline_ratio_low"])) == ("undecided", True)
    assert _row(table, level="float16", scope="all")["n_settings"] == 5


def test_batch_sizes_are_compared_with_batch_2_whatever_their_prompts() -> None:
    rows = [_run(energy, "float16", batch, "a") for batch, energy in ((2, 1.0), (64, 0.05), (1, 1.9))]
    table = _table(*rows)
    row = _row(table, factor="batch_size", level="64", scope="setting")
    assert row["level_over_baseline_ratio"] == pytest.approx(0.05)
    assert pd.isna(row["batch_size"])
    assert (row["precision"], row["baseline"]) == ("float16", "2")
    assert row["note"] == "no interval, because nothing was measured twice"
    assert table["level"].drop_duplicates().tolist() == ["1", "64"]  # in order of size


def test_lengths_tf32_and_settings_measured_elsewhere() -> None:
    table = _table(
        _run(1.0, "float16", 8, "a"),
        _run(4.0, "float16", 8, "b", study="anchors"),
        _run(3.0, "float16", 8, "b", study="lengths", n_input_tokens=500, n_output_tokens=500),
        _run(2.0, "float32", 8, "a", study="tf32"),
        _run(1.5, "tf32", 8, "a", study="tf32"),
        _run(7.0, "int8", 8, "a", study="warmup"),  # not a setting of these studies
    )
    lengths = _row(table, factor="lengths", scope="setting")
    assert (lengths["level"], lengths["baseline"]) == ("500 in, 500 out", "128 in, 128 out")
    assert lengths["level_over_baseline_ratio"] == pytest.approx(0.75)
    assert _row(table, level="tf32", scope="setting")["level_over_baseline_ratio"] == pytest.approx(0.75)
    assert "int8" not in set(table["level"])
    half = _row(table, level="float16", baseline="float32", scope="setting")
    assert half["level_over_baseline_ratio"] == pytest.approx(1.0)  # 0.5 in its sitting, 2 over the campaign
    assert (half["n_pairs"], half["n_same_sitting"]) == (2, 1)


def test_nothing_to_compare_gives_no_rows_and_a_bad_energy_is_refused() -> None:
    assert _table().empty
    assert _table(_run(1.0, "float16", 8, "a")).empty
    with pytest.raises(AnalysisError, match="is -1"):
        _table(_run(-1.0, "float16", 8, "a"), _run(1.0, "float32", 8, "a"))
