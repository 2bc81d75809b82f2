"""The least energy of a prompt, counted by hand on a tiny model and a slow GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import served_campaign as served

from inference_energy.analyse.arrival_runs import arrival_runs
from inference_energy.analyse.energy_floor import IMPOSSIBLE, NOT_PLAUSIBLE, POSSIBLE, energy_floor
from inference_energy.tables.arrivals import ARRIVAL_RUNS
from inference_energy.tables.speed import ARCHITECTURES, GPU_FACTS

#: Of tiny-llama: see test_utilisation.py, where weights and FLOP are counted by hand and against torch.
TINY: dict[str, Any] = {
    "model": "tiny-llama",
    "n_layers": 4,
    "n_hidden": 256,
    "n_intermediate": 688,
    "n_heads": 8,
    "n_kv_heads": 4,
    "n_head_dim": 32,
    "n_vocab": 512,
    "tied_embeddings": True,
    "n_parameters": 3033344,
}
ARCHITECTURE = pd.DataFrame([TINY], columns=ARCHITECTURES.names)
WEIGHTS, FLOP = 2_899_968 + 131_072, 41_500_672  # FLOP of 5 tokens in and 3 out
CACHED = 4_096 * (7 + 6 + 7)  # bytes of keys and values that are written and read, float32
FACTS = pd.DataFrame([("a GPU", "float32", 1e9, 2e9, 700.0)], columns=GPU_FACTS.names)
NONE = pd.DataFrame(columns=ARRIVAL_RUNS.names)


def _run(**changes: Any) -> pd.DataFrame:
    """Six prompts of 5 tokens in and 3 out, two at a time, 20 J each; idle at 50 W."""
    levels: dict[str, Any] = {"study": "padding", "engine": "vllm", "model": "tiny-llama", "precision": "float32"}
    counts = {
        "batch_size": 2,
        "n_prompts_measured": 6,
        "n_output_tokens_measured": 18,
        "n_effective_input_tokens_measured": 30,
        "n_input_tokens_measured": 60,  # with padding, which is no work that must be done
    }
    numbers = {"gpu_name": "a GPU", "idle_power_w": 50.0, "energy_j_per_prompt": 20.0, "n_sequences_limit": None}
    return served.frame("runs", [served.run({"arrival": "none"}, 1, **(levels | counts | numbers | changes))])


def _row(arrivals: pd.DataFrame = NONE, facts: pd.DataFrame = FACTS, **changes: Any) -> pd.Series:
    return energy_floor(_run(**changes), arrivals, ARCHITECTURE, facts).table().iloc[0]


def test_both_floors_by_hand() -> None:
    row = _row()
    moved = 3 * 4 * WEIGHTS / 2 + CACHED
    assert row["flop_per_prompt"] == pytest.approx(FLOP, rel=1e-12)
    assert row["bytes_per_prompt"] == pytest.approx(moved, rel=1e-12)
    # 41.5 ms of arithmetic at 1 GFLOP/s, 9.1 ms of bytes at 2 GB/s: arithmetic is the longer part.
    assert row["least_s_per_prompt"] == pytest.approx(FLOP / 1e9, rel=1e-12)
    assert row["energy_floor_j_per_prompt"] == pytest.approx(50 * FLOP / 1e9, rel=1e-12)
    assert row["arithmetic_energy_j_per_prompt"] == pytest.approx(700 * FLOP / 1e9, rel=1e-12)
    assert row["energy_over_floor_ratio"] == pytest.approx(20 / (50 * FLOP / 1e9), rel=1e-12)


def test_bytes_are_the_floor_where_memory_is_slow() -> None:
    slow = FACTS.assign(memory_bandwidth_bytes_per_s=1e8)
    assert _row(facts=slow)["least_s_per_prompt"] == pytest.approx((6 * WEIGHTS + CACHED) / 1e8, rel=1e-12)
    # Four GPUs have four times the peaks: the idle power in a run's row is that of all of them together.
    assert _row(facts=slow, n_gpus=4)["least_s_per_prompt"] == pytest.approx((6 * WEIGHTS + CACHED) / 4e8, rel=1e-12)


@pytest.mark.parametrize(("energy", "verdict"), [(2.07, IMPOSSIBLE), (2.08, NOT_PLAUSIBLE), (29.1, POSSIBLE)])
def test_a_run_is_judged_by_both(energy: float, verdict: str) -> None:
    assert _row(energy_j_per_prompt=energy)["verdict"] == verdict  # floors: 2.075 and 29.05 J


def test_arriving_requests_share_a_reading_of_the_weights_with_those_under_way() -> None:
    levels = {"arrival": "poisson", "arrival_requests_per_s": 4.0}
    runs = _run(study="arrival", batch_size=1, setting="poisson-4.0", **levels)
    arrivals = arrival_runs(runs, served.frame("requests", served.requests(levels, 1))).table()
    assert energy_floor(runs, arrivals, ARCHITECTURE, FACTS).table().iloc[0]["n_at_once_max"] == 4
    few = runs.assign(n_sequences_limit=pd.array([3], dtype="Int64"))
    assert energy_floor(few, arrivals, ARCHITECTURE, FACTS).table().iloc[0]["n_at_once_max"] == 3


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"gpu_name": "another"}, "no peak rate of another for float32 in config/hardware.yaml"),
        ({"prefix_caching": "on"}, "prompts that share a beginning are computed once"),
        ({"idle_power_w": np.nan}, "no idle power"),
    ],
)
def test_without_a_floor_there_is_no_verdict_but_a_reason(changes: dict[str, Any], note: str) -> None:
    row = _row(**changes)
    assert pd.isna(row["verdict"])
    assert pd.isna(row["energy_over_floor_ratio"])
    assert note in row["note"]


def test_weights_of_4_bits_take_less_in_vllm_than_in_bitsandbytes() -> None:
    facts = pd.DataFrame([("a GPU", "float16", 1e9, 1e6, 700.0)], columns=GPU_FACTS.names)
    other = 2 * 131_072 * 3 / 2 + CACHED / 2  # the last layer, and the cache, in half precision
    vllm, naive = (_row(facts=facts, precision="int4", engine=name) for name in ("vllm", "transformers"))
    assert vllm["bytes_per_prompt"] == pytest.approx(3 * 2_899_968 * (0.5 + 2 / 128) / 2 + other, rel=1e-12)
    assert naive["bytes_per_prompt"] == pytest.approx(3 * 2_899_968 * (0.5 + 4 / 64) / 2 + other, rel=1e-12)


def test_a_campaign_without_such_runs_has_no_rows() -> None:
    assert energy_floor(_run().iloc[:0], NONE, ARCHITECTURE, FACTS).table().empty
