"""SYNTHETIC runs of studies engine and sharing: nothing here was measured, every ratio is known by construction."""

from __future__ import annotations

from typing import Any

import pandas as pd

from inference_energy import tables

MODELS = ("llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b")
TRANSFORMERS = {"engine": "transformers", "execution": "eager_mode", "engine_process": "own", "prefill": "whole"}
EAGER = {"engine": "vllm", "execution": "eager_mode", "engine_process": "shared", "prefill": "chunked"}
GRAPHS = EAGER | {"execution": "graphs"}
ENGINES = {"t": TRANSFORMERS, "e": EAGER, "g": GRAPHS}
JOULES = {"llama-3.2-1b": 1.0, "llama-3.2-3b": 2.0, "llama-3.1-8b": 4.0}
#: Energy over that of graphs at the same batch, by batch size and model; and energy at a batch over that of one prompt.
OVER_GRAPHS = {1: {"t": (4.0, 3.0, 2.0), "e": (2.0, 1.5, 1.2)}, 64: {"t": (3.0, 2.5, 1.8), "e": (1.5, 1.3, 1.1)}}
OF_BATCH = {1: 1.0, 64: 0.025}
CYCLES = {1: 1.01, 2: 0.99}


def joules(model: str, engine: str, batch: int) -> float:
    """Energy of an output token before a cycle's effect."""
    over = OVER_GRAPHS[batch].get(engine, (1.0, 1.0, 1.0))[MODELS.index(model)]
    return JOULES[model] * OF_BATCH[batch] * over


def run(study: str, model: str, batch: int, cycle: int, energy: float, **levels: Any) -> dict[str, Any]:
    """A row of ``runs``; throughput by a power of 100 W per prompt's share that grows with the batch."""
    power = 300.0 if batch > 1 else 200.0
    name = "-".join(str(levels[key]) for key in ("engine", "execution", "engine_process"))
    follows = bool(levels.get("process_position"))
    return {
        "campaign": "synthetic",
        "study": study,
        "setting": f"{model}_b{batch}_{name}",
        "cycle": cycle,
        "status": "ok",
        "model": model,
        "weights": "random",
        "precision": "bfloat16",
        "batch_size": batch,
        "n_prompts": batch,
        "n_input_tokens": 128,
        "n_output_tokens": 128,
        "n_gpus": 1,
        "parallelism": "none",
        "attention": "sdpa_no_cudnn",
        "sitting": f"s{cycle}",
        "hardware": "4 x NVIDIA H200",
        "gpu_name": "NVIDIA H200",
        "gpu_uuid_hash": "a",
        "n_visible_gpus": 4,
        "n_metered_gpus": 1,
        "energy_method": "nvml_total_energy",
        "energy_j_per_output_token": energy,
        "throughput_tokens_per_s": power / energy,
        "power_mean_w": power,
        "idle_power_w": None if follows else 80.0,
        "codecarbon_cpu_power_w": 60.0,
        "codecarbon_ram_power_w": 36.0,
        "load_s": None if follows else 40.0 if levels.get("execution") == "graphs" else 8.0,
        "started_to_first_iteration_s": None if follows else 15.0,
        "compile_cache": None,
    } | levels


def engine_runs() -> list[dict[str, Any]]:
    """Study engine: three models, two batch sizes, three engines, two cycles; batch 64 follows batch 1 in vLLM."""
    rows = []
    for model in MODELS:
        for batch in (1, 64):
            for key, levels in ENGINES.items():
                for cycle, effect in CYCLES.items():
                    noise = 1.0 + 0.004 * (MODELS.index(model) - 1) * (1.5 - cycle) if key == "t" else 1.0
                    more: dict[str, Any] = dict(levels)
                    if key != "t":
                        more |= {"process": f"{model}{key}{cycle}", "process_position": int(batch == 64)}
                        more |= {"compile_cache": "none" if key == "e" else "new" if cycle == 1 else "reused"}
                    rows.append(run("engine", model, batch, cycle, joules(model, key, batch) * effect * noise, **more))
    return rows


def sharing_runs() -> list[dict[str, Any]]:
    """Study sharing: shared engines take 0.2 % more at every batch size, in two cycles that agree within 0.02 %."""
    rows = []
    for place, batch in enumerate((8, 32, 128)):
        for cycle, effect in CYCLES.items():
            energy = 1.0 / batch * effect
            more = GRAPHS | {"compile_cache": "reused"}
            rows.append(run("sharing", MODELS[0], batch, cycle, energy, **more | {"engine_process": "own"}))
            position = place if cycle == 1 else 2 - place
            shared = energy * (1.002 + 0.0001 * cycle + 0.00002 * place)
            where = {"process": f"sharing{cycle}", "process_position": position}
            rows.append(run("sharing", MODELS[0], batch, cycle, shared, **more | where))
    return rows


def runs(rows: list[dict[str, Any]] | None = None) -> pd.DataFrame:
    """Table ``runs``: both studies unless rows are given."""
    rows = engine_runs() + sharing_runs() if rows is None else rows
    return tables.conform(pd.DataFrame(rows).reindex(columns=tables.RUNS.names), tables.RUNS)


def devices(frame: pd.DataFrame) -> pd.DataFrame:
    """Table ``devices``: the start of graphs takes 5 kJ (new) or 3 kJ (reused), of eager mode 1 kJ, else 100 J."""
    rows = []
    for _, row in frame.iterrows():
        graphs = {"new": 5000.0, "reused": 3000.0}.get(row["compile_cache"])
        start = graphs if row["execution"] == "graphs" else 1000.0 if row["engine"] == "vllm" else 100.0
        start = 0.0 if pd.isna(row["load_s"]) else start
        about = {name: row[name] for name in ("campaign", "study", "setting", "cycle")}
        rows.append(about | {"participates": True, "load_energy_j": start})
        rows.append(about | {"participates": False, "load_energy_j": 1e6})  # an idle GPU bears nothing of it
    table = tables.TABLES["devices"]
    return tables.conform(pd.DataFrame(rows).reindex(columns=table.names), table)
