"""SYNTHETIC runs of study arrival and their requests, with numbers known by construction. Nothing here was measured.

A request takes ``BASE_J + IDLE_SHARE_J / rate`` joules, all at once ``BASE_J``; random gaps take a tenth more, a limit
of the cache a fifth more; cycle 1 one percent more and cycle 2 one percent less.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from inference_energy import tables

BASE_J, IDLE_SHARE_J = 20.0, 320.0
N_REQUESTS, N_PASSES = 20, 2
CYCLES = {1: 1.01, 2: 1 / 1.01}
ARRIVALS: tuple[dict[str, Any], ...] = (
    {"arrival": "burst"},
    {"arrival": "fixed", "arrival_requests_per_s": 4.0},
    {"arrival": "fixed", "arrival_requests_per_s": 16.0},
    {"arrival": "uniform", "arrival_requests_per_s": 16.0},
    {"arrival": "poisson", "arrival_requests_per_s": 4.0},
    {"arrival": "poisson", "arrival_requests_per_s": 16.0},
    {"arrival": "gamma", "arrival_requests_per_s": 16.0, "arrival_cv": 2.0},
    {"arrival": "poisson", "arrival_requests_per_s": 16.0, "kv_cache_tokens": 8192},
)


def request_j(levels: dict[str, Any], cycle: int = 0) -> float:
    """Energy of a request by construction; cycle 0 leaves out the cycle's effect."""
    rate = levels.get("arrival_requests_per_s")
    random = 1.0 if levels["arrival"] in ("burst", "fixed") else 1.1
    cached = 1.2 if "kv_cache_tokens" in levels else 1.0
    return (BASE_J + (IDLE_SHARE_J / rate if rate else 0.0)) * random * cached * (CYCLES[cycle] if cycle else 1.0)


def planned_s(levels: dict[str, Any], n: int = N_REQUESTS) -> np.ndarray:
    """Planned arrivals of a pass."""
    rate = levels.get("arrival_requests_per_s")
    return np.arange(n) / rate if rate else np.zeros(n)


def name_of(levels: dict[str, Any]) -> str:
    """A setting's name."""
    return "-".join(str(value) for value in levels.values())


def run(levels: dict[str, Any], cycle: int, **changes: Any) -> dict[str, Any]:
    """A row of ``runs``."""
    n_ok = N_REQUESTS * N_PASSES
    measured_s = N_PASSES * (float(planned_s(levels)[-1]) + 1.0)
    energy = request_j(levels, cycle)
    return {
        "campaign": "served",
        "study": "arrival",
        "setting": name_of(levels),
        "cycle": cycle,
        "status": "ok",
        "engine": "vllm_server",
        "model": "llama-3.1-8b",
        "weights": "random",
        "precision": "bfloat16",
        "batch_size": 1,
        "n_prompts": N_REQUESTS,
        "n_input_tokens": 256,
        "n_output_tokens": 128,
        "attention": "sdpa",
        "decoding": "greedy",
        "parallelism": "none",
        "n_gpus": 1,
        "launcher": "fork",
        "warmup": "steady",
        "sitting": f"s{cycle}",
        "host": "abcdef",
        "hardware": "NVIDIA H200, 16-core host",
        "gpu_name": "NVIDIA H200",
        "power_limit_w": 700.0,
        "energy_method": "nvml_total_energy",
        "energy_j": energy * n_ok,
        "energy_j_per_output_token": energy / 128,
        "energy_j_per_prompt": energy,
        "n_prompts_measured": n_ok,
        "n_output_tokens_measured": 128 * n_ok,
        "n_input_tokens_measured": 256 * n_ok,
        "n_effective_input_tokens_measured": 256 * n_ok,
        "measured_s": measured_s,
        "throughput_tokens_per_s": 128 * n_ok / measured_s,
        "power_mean_w": energy * n_ok / measured_s,
        "idle_power_w": 75.0,
        "n_running_mean": 6.0,
        "n_waiting_mean": 0.5,
        "kv_cache_used_fraction": 0.1,
        "n_kv_blocks": 512 if "kv_cache_tokens" in levels else 40_000,
        "n_tokens_per_kv_block": 16,
        "n_sequences_limit": 256,
        "n_preemptions": 3 if "kv_cache_tokens" in levels else 0,
        "client_cpu_s": 0.002 * n_ok,
        "client_wall_s": measured_s,
        "arrival": "none",
        "prefix_caching": "off",
        **levels,
        **changes,
    }


def requests(levels: dict[str, Any], cycle: int, first_s: float = 0.25, gap_s: float = 0.005) -> list[dict[str, Any]]:
    """Rows of ``requests``: sent 0.2 ms late, the first token after `first_s`, 127 more `gap_s` apart."""
    rows = []
    pass_s = float(planned_s(levels)[-1]) + 1.0
    for index, planned in enumerate(np.concatenate([n * pass_s + planned_s(levels) for n in range(N_PASSES)])):
        first, ended = planned + first_s, planned + first_s + 127 * gap_s
        rows.append(
            {
                **{
                    key: run(levels, cycle)[key]
                    for key in ("campaign", "study", "setting", "cycle", "model", "arrival")
                },
                "arrival_requests_per_s": levels.get("arrival_requests_per_s"),
                "request": index,
                "scheduled_s": planned,
                "sent_s": planned + 0.0002,
                "first_token_s": first,
                "ended_s": ended,
                "n_input_tokens": 256,
                "n_tokens_requested": 128,
                "n_tokens_counted": 128,
                "n_tokens_reported": 128,
                "outcome": "ok",
                "time_to_first_token_s": first_s,
                "latency_s": ended - planned,
                "inter_token_latency_s": gap_s,
            }
        )
    return rows


def one_by_one(cycle: int) -> dict[str, Any]:
    """Transformers answering the same model's prompts one by one, at 400 J each."""
    levels = {"engine": "transformers", "n_prompts": 1, "n_input_tokens": 128, "arrival": "none"}
    energy = 400.0 * CYCLES[cycle]
    return run({"arrival": "burst"}, cycle, study="engine", setting="one-by-one", energy_j_per_prompt=energy, **levels)


def frame(name: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """`rows` as the table `name`; columns that are not given are missing."""
    table = tables.TABLES[name]
    return tables.conform(pd.DataFrame(rows).reindex(columns=table.names), table)


def frames() -> dict[str, pd.DataFrame]:
    """``runs`` and ``requests`` of two cycles."""
    every = [(levels, cycle) for cycle in CYCLES for levels in ARRIVALS]
    rows = [run(levels, cycle) for levels, cycle in every] + [one_by_one(cycle) for cycle in CYCLES]
    return {
        "runs": frame("runs", rows),
        "requests": frame("requests", [row for levels, cycle in every for row in requests(levels, cycle)]),
    }


def traces(levels: dict[str, Any], cycle: int) -> dict[str, list[dict[str, Any]]]:
    """Windows, the engine's queues and the power of a run: sequences rise and fall once in a pass."""
    key = {name: run(levels, cycle)[name] for name in ("campaign", "study", "setting", "cycle")}
    pass_s = float(planned_s(levels)[-1]) + 1.0
    windows = [
        {**key, "window": n, "started_s": 5.0 + n * (pass_s + 0.2), "duration_s": pass_s, "model": "llama-3.1-8b"}
        for n in range(N_PASSES)
    ]
    times = np.arange(4.0, 6.0 + N_PASSES * pass_s, 0.1)
    wave = np.abs(np.sin(np.pi * (times - 5.0) / pass_s))
    engine = [
        {**key, "time_s": time_s, "phase": "window", "n_running": 12 * height, "n_waiting": 2 * height}
        for time_s, height in zip(times, wave, strict=True)
    ]
    power = [
        {**key, "time_s": time_s, "phase": "window", "power_w": 120.0 + 400 * height}
        for time_s, height in zip(times, wave, strict=True)
    ]
    return {"windows": windows, "engine_samples": engine, "samples": power}


def architectures() -> pd.DataFrame:
    """The one model served: Llama-3.1-8B."""
    shape = {"n_layers": 32, "n_hidden": 4096, "n_intermediate": 14336, "n_heads": 32, "n_kv_heads": 8}
    rest = {"n_head_dim": 128, "n_vocab": 128256, "tied_embeddings": False, "n_parameters": 8030261248}
    return frame("architectures", [{"model": "llama-3.1-8b"} | shape | rest])


def gpu_facts() -> pd.DataFrame:
    """Its GPU."""
    peaks = {"peak_flop_per_s": 989.5e12, "memory_bandwidth_bytes_per_s": 4.8e12, "power_limit_w": 700.0}
    return frame("gpu_facts", [{"gpu_name": "NVIDIA H200", "precision": "bfloat16"} | peaks])


def whole() -> dict[str, pd.DataFrame]:
    """Every table from records that the page reads."""
    found: dict[str, list[dict[str, Any]]] = {"windows": [], "engine_samples": [], "samples": []}
    for cycle in CYCLES:
        for levels in ARRIVALS:
            for name, rows in traces(levels, cycle).items():
                found[name] += rows
    facts = {"architectures": architectures(), "gpu_facts": gpu_facts()}
    return frames() | {name: frame(name, rows) for name, rows in found.items()} | facts
