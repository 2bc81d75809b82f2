"""A small table of published records: runs of 1 to 4 processes on a machine of known idle and working power."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

IDLE_W, WORKING_W, LIMIT_W, N_GPUS = 30.0, 200.0, 250.0, 4
CPU_W, SECONDS, N_PROMPTS, N_OUTPUT, BATCH = 100.0, 10.0, 64, 16, 8

MAPPING: dict[str, Any] = {
    "name": "made",
    "title": "Made for the test",
    "source": {"url": "https://example.org/file.csv", "commit": "abc", "sha256": "00"},
    "gpu": "NVIDIA A100-PCIE-40GB",
    "n_gpus": N_GPUS,
    "runs": {
        "run": {"column": "id"},
        "n_processes": {"column": "processes"},
        "n_tokens_counted": {"column": "tokens"},
        "energy_j": {"column": "total_kwh", "unit": "kWh"},
        "energy_j_per_output_token": {"column": "j_per_token", "unit": "J"},
        "batch_size": {"column": "batch"},
        "n_prompts": {"column": "prompts"},
        "n_output_tokens": {"column": "out"},
        "duration_s": {"column": "seconds", "unit": "s"},
        "batch_duration_s": {"column": "batch_ms", "unit": "ms"},
        "cycle": {"column": "cycle"},
        "ended_at": {"column": "when"},
    },
    "processes": {
        "gpu_energy_j": {"column": "gpu_{number}", "unit": "kWh"},
        "cpu_energy_j": {"column": "cpu_{number}", "unit": "kWh"},
        "ram_energy_j": {"column": "ram_{number}", "unit": "kWh"},
        "energy_j": {"column": "all_{number}", "unit": "kWh"},
        "cpu_power_w": {"column": "cpu_power_{number}", "unit": "W"},
    },
    "duration_from_cpu": True,
    "gpus": {"utilisation_fraction": {"column": "use_{number}", "unit": "percent"}},
    "setting": ["batch"],
    "stated": {"n_output_tokens": 500, "n_cycles": 2, "cycle_gap_s": 1000.0, "source": "made up"},
}


def table(reads_all: bool = True, shares: bool = False) -> pd.DataFrame:
    """Runs of 1 to 4 processes in 2 cycles, whose trackers read all GPUs or their own."""
    rows = []
    for cycle in (1, 2):
        for n in (1, 2, 3, 4):
            power = n * WORKING_W + (N_GPUS - n) * IDLE_W if reads_all else WORKING_W
            prompts = N_PROMPTS / n if shares else N_PROMPTS
            row: dict[str, Any] = {
                "id": f"c{cycle}n{n}",
                "processes": n,
                "tokens": N_PROMPTS * N_OUTPUT,
                "batch": BATCH,
                "prompts": N_PROMPTS,
                "out": N_OUTPUT,
                "seconds": SECONDS,
                "batch_ms": 1000 * SECONDS / np.ceil(prompts / BATCH),
                "cycle": cycle,
                "when": pd.Timestamp("2025-01-01") + pd.Timedelta(seconds=2000 * cycle + 20 * n),
            }
            for number in range(4):
                part = {"gpu": power, "cpu": CPU_W, "ram": 1.0} if number < n else {}
                for name in ("gpu", "cpu", "ram"):
                    row[f"{name}_{number}"] = part.get(name, np.nan) * SECONDS / 3.6e6
                row[f"all_{number}"] = sum(part.values()) * SECONDS / 3.6e6 if part else np.nan
                row[f"cpu_power_{number}"] = CPU_W if part else np.nan
                row[f"use_{number}"] = 100.0 if number < n else 0.0
            row["total_kwh"] = n * row["all_0"]
            row["j_per_token"] = row["total_kwh"] * 3.6e6 / row["tokens"]
            rows.append(row)
    return pd.DataFrame(rows)
