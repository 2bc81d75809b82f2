"""Three ways to count a run, worked out by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from inference_energy.analyse.accountings import accountings
from inference_energy.errors import AnalysisError
from inference_energy.tables import RUNS, conform


def _runs(*rows: dict[str, object]) -> pd.DataFrame:
    common = {"campaign": "c", "study": "s", "cycle": 1, "parallelism": "none", "n_gpus": 1, "n_visible_gpus": 4}
    common |= {
        "traffic": "none",
        "energy_j_per_output_token": 2.0,
        "throughput_tokens_per_s": 100.0,
        "idle_power_w": 80.0,
    }
    made = [common | {"setting": f"x{i}"} | row for i, row in enumerate(rows)]
    return conform(pd.DataFrame(made, columns=RUNS.names), RUNS)


def _energies(runs: pd.DataFrame) -> list[float]:
    """Energy per token: generated, answered, published."""
    table = accountings(runs).table().set_index("accounting")["energy_j_per_output_token"]
    return [float(table[name]) for name in ("generated", "answered", "published")]


def test_one_gpu_of_four_pays_for_three_idle_ones_as_published() -> None:
    assert _energies(_runs({})) == pytest.approx([2.0, 2.0, 2.0 + 3 * 80 / 100], rel=1e-12)


def test_duplicated_replicas_answer_once_and_the_machine_counts_for_each_process() -> None:
    runs = _runs(
        {
            "parallelism": "replicas_duplicated",
            "n_gpus": 2,
            "throughput_tokens_per_s": 200.0,
            "idle_power_w": 160.0,
        }
    )
    # 100 answered tokens a second: 400 W of two working GPUs and 2 x 80 W of idle ones, counted twice.
    assert _energies(runs) == pytest.approx([2.0, 4.0, 2 * (400 + 160) / 100], rel=1e-12)
    speed = accountings(runs).table().set_index("accounting")["throughput_tokens_per_s"]
    assert speed[["generated", "answered", "published"]].tolist() == [200.0, 100.0, 100.0]


@pytest.mark.parametrize(("kind", "n", "published"), [("replicas", 4, 8.0), ("tensor", 2, 2 * (2 + 2 * 80 / 100))])
def test_shared_prompts_are_answered_once(kind: str, n: int, published: float) -> None:
    runs = _runs({"parallelism": kind, "n_gpus": n, "idle_power_w": 80.0 * n})
    assert _energies(runs) == pytest.approx([2.0, 2.0, published], rel=1e-12)


def test_scenarios_of_the_code_see_only_the_gpus_that_take_part_but_the_ideal_one_sees_four() -> None:
    two = {"study": "scenarios_code", "traffic": "constant", "parallelism": "replicas_duplicated", "n_gpus": 2}
    assert _energies(_runs(two | {"idle_power_w": 160.0}))[2] == pytest.approx(2 * 2 * 2.0, rel=1e-12)
    assert _energies(_runs({"study": "scenarios_code"}))[2] == pytest.approx(4.4, rel=1e-12)


def test_without_idle_power_or_gpu_there_is_no_published_count() -> None:
    runs = _runs({"idle_power_w": None}, {"n_visible_gpus": 0}, {"energy_j_per_output_token": None})
    table = accountings(runs).table()
    assert sorted(zip(table["setting"], table["accounting"], strict=True)) == [
        ("x0", "answered"),
        ("x0", "generated"),
        ("x1", "answered"),
        ("x1", "generated"),
    ]
    assert accountings(runs.iloc[2:]).table().empty


@pytest.mark.parametrize("energy", [0.0, -1.0])
def test_an_energy_that_is_not_above_0_is_refused(energy: float) -> None:
    with pytest.raises(AnalysisError, match="s/x0 in cycle 1 is"):
        accountings(_runs({"energy_j_per_output_token": energy}))
