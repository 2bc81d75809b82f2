"""What waiting costs: slopes and ratios worked out by hand, and by statsmodels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from inference_energy.analyse import traffic as module
from inference_energy.analyse.traffic import traffic
from inference_energy.errors import AnalysisError
from inference_energy.tables import RUNS, conform

BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 2000, "seed": 1}
TOKENS, ITERATIONS = 1024, 10  # of a batch; in the windows
CONSTANT = {"traffic": "constant", "delay_min_s": 0.5, "delay_max_s": 0.5, "delay_every": "batch"}
QUERY = CONSTANT | {"delay_every": "query"}
SMALL = {"traffic": "burst", "delay_every": "batch", "burst_interval_s": 4.0, "burst_size": 8}
LARGE = SMALL | {"burst_size": 16}


def _run(wait_s: float, watts: float, start: float = 0.1, **levels: object) -> dict[str, object]:
    """A batch that costs `start` J per token, and `watts` while it waits."""
    energy = start + watts * wait_s / TOKENS
    return {"energy_j_per_output_token": energy, "waited_s": wait_s * ITERATIONS} | levels


def _runs(*rows: dict[str, object]) -> pd.DataFrame:
    common = {"campaign": "c", "study": "s", "model": "m", "precision": "float16", "batch_size": 8, "traffic": "none"}
    common |= {"cycle": 1, "sitting": "a", "n_gpus": 1, "parallelism": "none", "idle_loaded_power_w": 100.0}
    common |= {"n_iterations": ITERATIONS, "n_output_tokens_measured": TOKENS * ITERATIONS, "delay_every": "batch"}
    made = [common | {"setting": f"x{i}"} | row for i, row in enumerate(rows)]
    return conform(pd.DataFrame(made, columns=RUNS.names), RUNS)


def _row(table: pd.DataFrame, quantity: str, waiting: str, **levels: object) -> pd.Series:
    chosen = table[(table["quantity"] == quantity) & (table["waiting"] == waiting)]
    for name, level in ({"setting": "all", "model": "all"} | levels).items():
        chosen = chosen[chosen[name] == level]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_the_cost_of_a_second_is_found() -> None:
    table = traffic(_runs(_run(0, 0), _run(2, 120, **CONSTANT)), **BOOTSTRAP).table()
    power = _row(table, module.POWER, module.ALL)
    assert power["estimate"] == pytest.approx(120.0, rel=1e-9)
    assert pd.isna(power["estimate_low"])
    assert power["note"] == "one pair: no interval"
    assert power["waited_s"] == pytest.approx(2.0, rel=1e-12)
    assert _row(table, module.OVER_IDLE, module.ALL)["estimate"] == pytest.approx(1.2, rel=1e-9)
    assert _row(table, module.PER_SECOND, module.ALL, model="m")["estimate"] == pytest.approx(120 / TOKENS, rel=1e-9)
    over = _row(table, module.OVER_NONE, module.CONSTANT)
    assert over["estimate"] == pytest.approx((0.1 + 240 / TOKENS) / 0.1, rel=1e-9)


def test_the_slope_is_that_of_least_squares_through_the_origin() -> None:
    waits, watts = [0.4, 1.0, 2.0, 3.5], [300.0, 150.0, 120.0, 110.0]
    rows = [_run(wait, power, **CONSTANT) for wait, power in zip(waits, watts, strict=True)]
    table = traffic(_runs(_run(0, 0), *rows), **BOOTSTRAP).table()
    joules = np.array(waits) * np.array(watts)
    row = _row(table, module.POWER, module.ALL)
    assert row["estimate"] == pytest.approx(float(sm.OLS(joules, np.array(waits)).fit().params[0]), rel=1e-9)
    assert row["estimate_low"] < row["estimate"] < row["estimate_high"]


def test_an_interval_of_two_settings_is_their_range() -> None:
    table = traffic(_runs(_run(0, 0), _run(1, 120, **CONSTANT), _run(1, 160, **QUERY)), **BOOTSTRAP).table()
    row = _row(table, module.POWER, module.ALL)
    assert row[["estimate", "estimate_low", "estimate_high"]].tolist() == pytest.approx([140.0, 120.0, 160.0], rel=1e-9)
    same = _row(table, module.SAME_WAITING, f"{module.QUERY} over {module.CONSTANT}")
    assert same["estimate"] == pytest.approx(160 / 120, rel=1e-9)
    assert same["note"] == "one pair of a kind: no interval"
    paired = _row(table, module.PAIRED, f"{module.QUERY} over {module.CONSTANT}")
    assert paired["estimate"] == pytest.approx((0.1 + 160 / TOKENS) / (0.1 + 120 / TOKENS), rel=1e-9)


def test_bursts_beside_constant_delays_and_small_beside_large() -> None:
    rows = [
        _run(wait, watts * factor, model=model, **levels)
        for levels, watts in ((CONSTANT, 100.0), (SMALL, 150.0), (LARGE, 75.0))
        for model, factor, wait in (("m", 1.0, 1.0), ("k", 1.0, 2.0))
    ]
    table = traffic(_runs(_run(0, 0), _run(0, 0, model="k"), *rows), **BOOTSTRAP).table()
    bursts = _row(table, module.SAME_WAITING, f"{module.BURST} over {module.CONSTANT}")
    assert bursts["estimate"] == pytest.approx(112.5 / 100, rel=1e-9)
    sizes = _row(table, module.SAME_WAITING, f"{module.SMALL} over {module.LARGE}")
    assert sizes[["estimate", "estimate_low", "estimate_high"]].tolist() == pytest.approx([2.0, 2.0, 2.0], rel=1e-9)
    paired = _row(table, module.PAIRED, f"{module.SMALL} over {module.LARGE}")
    ratios = [(0.1 + 150 * w / TOKENS) / (0.1 + 75 * w / TOKENS) for w in (1, 2)]
    assert paired["estimate"] == pytest.approx(float(np.sqrt(np.prod(ratios))), rel=1e-9)
    assert paired["n_pairs"] == 2


def test_watts_rest_on_pairs_of_one_sitting() -> None:
    table = traffic(_runs(_run(0, 0), _run(1, 120, sitting="b", **CONSTANT)), **BOOTSTRAP).table()
    power = _row(table, module.POWER, module.ALL)
    assert pd.isna(power["estimate"])
    assert power["note"] == "no such run has its equal without waiting in the same sitting"
    over = _row(table, module.OVER_NONE, module.ALL)
    assert over["estimate"] == pytest.approx((0.1 + 120 / TOKENS) / 0.1, rel=1e-9)
    assert over[["n_pairs", "n_sitting_pairs"]].tolist() == [1, 0]


def test_without_idle_power_there_is_no_check() -> None:
    runs = _runs(_run(0, 0), _run(1, 120, **CONSTANT)).assign(idle_loaded_power_w=np.nan)
    row = _row(traffic(runs, **BOOTSTRAP).table(), module.OVER_IDLE, module.ALL)
    assert pd.isna(row["estimate"])
    assert row["note"]


def test_missing_levels_and_baselines_are_said() -> None:
    table = traffic(_runs(_run(1, 120, **CONSTANT), _run(0, 0, precision="int8")), **BOOTSTRAP).table()
    assert table["estimate"].isna().all()
    assert table["note"].notna().all()
    assert _row(table, module.OVER_NONE, module.ALL)["note"] == "no such run has its equal without waiting"


def test_several_gpus_and_runs_without_waiting_stand_aside() -> None:
    assert traffic(_runs(_run(0, 0), _run(1, 120, n_gpus=2, **CONSTANT)), **BOOTSTRAP).table().empty
    assert traffic(_runs(_run(0, 0)).iloc[:0], **BOOTSTRAP).table().empty


def test_an_energy_of_zero_is_refused() -> None:
    with pytest.raises(AnalysisError, match="a value above 0"):
        traffic(_runs(_run(0, 0), _run(0, 0, start=0.0, **CONSTANT)), **BOOTSTRAP)
