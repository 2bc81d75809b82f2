"""A campaign made up in a few lines, with numbers known by construction, for figures, prose and pages.

One output token of model m at batch b costs ``E(m, precision) * (1 / b + 0.02)`` joules, times a
cycle effect of ±1 % and a window effect of at most ±2 %.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from inference_energy import tables
from inference_energy.analyse.cost_range import cost_range

JOULES = {
    ("llama-3.2-1b", "float16"): 1.4,
    ("llama-3.2-1b", "float32"): 2.6,
    ("llama-3.2-3b", "float16"): 2.9,
    ("llama-3.2-3b", "float32"): 6.1,
}
BATCHES = (1, 2, 4, 8, 16, 32, 64)
WINDOW_EFFECTS = (0.99, 1.0, 1.01, 1.02, 0.98)
WARM_UP = {"sdpa": (70.0, 9.0, 8.7, 8.7, 8.6), "sdpa_no_cudnn": (10.0, 8.8, 8.7, 8.7, 8.6), "eager": (11, 9, 9, 9, 9)}

ABOUT: dict[str, Any] = {
    "campaign": "pilot",
    "title": "A pilot on one NVIDIA H200",
    "description": "Made up for tests.",
    "studies": {"batching": "How does energy per token depend on the batch size?"},
    "commit": "0123abc",
    "versions": {"inference-energy": "0.1.0", "torch": "2.13.0"},
}
CONTEXT: dict[str, Any] = {
    "grid": "germany",
    "price": "household",
    "pue": "typical",
    "household": "average",
    "n_response_tokens": 300,
    "confidence": 0.95,
    "context": {
        "carbon_g_per_kwh": {
            "germany": {"value": 363, "unit": "g CO2e/kWh", "source": "made up", "year": 2024},
            "france": {"value": 44, "unit": "g CO2e/kWh", "source": "made up", "year": 2024},
            "poland": {"value": 615, "unit": "g CO2e/kWh", "source": "made up", "year": 2024},
        },
        "price_eur_per_kwh": {"household": {"value": 0.4, "unit": "EUR/kWh", "source": "made up", "year": 2025}},
        "pue": {"typical": {"value": 1.5, "unit": "ratio", "source": "made up", "year": 2024}},
        "appliance_energy_j": {
            "kettle_one_litre": {"value": 396000, "unit": "J", "source": "made up", "year": 2020},
            "led_lamp_one_hour": {"value": 36000, "unit": "J", "source": "made up", "year": 2020},
            "phone_charge": {"value": 68400, "unit": "J", "source": "made up", "year": 2020},
        },
        "household_yearly_energy_kwh": {
            "average": {"value": 3500, "unit": "kWh", "source": "made up", "year": 2024},
        },
        "n_requests_per_day": {
            "a_village": {"value": 1e6, "unit": "requests", "source": "made up", "year": 2024},
            "a_country": {"value": 1e9, "unit": "requests", "source": "made up", "year": 2024},
        },
    },
    "notes": [
        {"kind": "ASSUME", "where": "src/made_up.py:1", "text": "prompts are random token ids."},
        {"kind": "SOURCE", "where": "config/made_up.yaml:2", "text": "a made-up table."},
    ],
}


def joules(model: str, precision: str, batch: int, cycle: int = 0) -> float:
    """Energy per output token by construction; cycle 0 leaves out the cycle's effect."""
    return JOULES[model, precision] * (1 / batch + 0.02) * {0: 1.0, 1: 1.01, 2: 0.99}[cycle]


def conformed(table: tables.Table, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """`rows` as `table`, columns that are not given missing."""
    return tables.conform(pd.DataFrame(rows, columns=table.names), table)


def with_interval(name: str, value: float, spread: float = 0.02) -> dict[str, float]:
    """`value` with an interval of ± `spread`."""
    return {name: value, f"{name}_low": value * (1 - spread), f"{name}_high": value * (1 + spread)}


def _runs() -> list[dict[str, Any]]:
    rows = []
    for (model, precision), _ in JOULES.items():
        for batch in BATCHES:
            rows += [_run("batching", model, precision, batch, cycle) for cycle in (1, 2)]
    for attention in WARM_UP:
        for protocol in ("steady", "forward_passes"):
            rows += [
                _run("warmup", "llama-3.2-1b", "float16", 8, cycle, attention=attention, warmup=protocol)
                for cycle in (1, 2)
            ]
    for launcher in ("fork", "cold"):
        for batch in (8, 64):
            rows += [_run("launcher", "llama-3.2-1b", "float16", batch, cycle, launcher=launcher) for cycle in (1, 2)]
    return rows


def _run(study: str, model: str, precision: str, batch: int, cycle: int, **levels: str) -> dict[str, Any]:
    energy = joules(model, precision, batch, cycle) * (1.005 if levels.get("launcher") == "cold" else 1)
    throughput = 110 * batch * (0.5 if "3b" in model else 1) * (0.8 if precision == "float32" else 1)
    measured = 16.0
    suffix = "-".join(levels.values())
    return {
        "campaign": "pilot",
        "study": study,
        "setting": f"{model}_{precision}_b{batch}_{suffix}",
        "cycle": cycle,
        "status": "ok",
        "model": model,
        "engine": "transformers",
        "weights": "random",
        "precision": precision,
        "batch_size": batch,
        "n_input_tokens": 128,
        "n_output_tokens": 128,
        "attention": "sdpa_no_cudnn",
        "decoding": "greedy",
        "n_gpus": 1,
        "launcher": "fork",
        "warmup": "steady",
        "sitting": f"s{cycle}",
        "host": "abcdef",
        "hardware": "NVIDIA H200, 16-core host",
        "gpu_name": "NVIDIA H200",
        "power_limit_w": 700.0,
        "energy_method": "nvml_total_energy",
        "energy_j_per_output_token": energy,
        "n_windows": 5,
        "throughput_tokens_per_s": throughput,
        "power_mean_w": energy * throughput,
        "window_cv": 0.0158,
        "measured_s": measured,
        "wall_s": 20.0,
        "idle_s": 1.0,
        "load_s": 1.0,
        "warmup_s": 1.5,
        "n_warnings": 0,
        "counter_over_power_ratio": 1.002,
        "duration_s_per_step": batch / throughput,
        "started_to_first_iteration_s": 8.0 if levels.get("launcher") == "cold" else 0.7,
        **levels,
    }


def _windows(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **run,
            "window": window,
            "started_s": 4 + 3.2 * window,
            "duration_s": 3.2,
            "counter_over_power_ratio": 1 + 0.002 * (window - 1),
            "energy_j_per_output_token": run["energy_j_per_output_token"] * effect,
        }
        for run in runs
        for window, effect in enumerate(WINDOW_EFFECTS)
    ]


def _iterations(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for run in runs:
        if run["study"] != "warmup":
            continue
        steps_ms = WARM_UP[run["attention"]] + (8.7 if run["attention"] != "eager" else 9,) * 15
        n_warm_up = 5 if run["warmup"] == "steady" else 0
        rows += [
            {
                **run,
                "phase": "warmup" if index < n_warm_up else "window",
                "index": index,
                "started_s": index * 1.1,
                "duration_s": 0.128 * step,
                "duration_s_per_step": step / 1000,
                "energy_j_per_output_token": 0.178 * step / 8.7,
            }
            for index, step in enumerate(steps_ms)
        ]
    return rows


def _samples(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    phases = [
        ("idle", 1.0, 78.0),
        ("load", 1.0, 120.0),
        ("none", 0.2, 125.0),
        ("warmup", 1.5, 300.0),
        *[("window", 3.2, 400.0)] * 5,
        ("idle_loaded", 0.5, 123.0),
    ]
    rows = []
    for run in runs[:2]:
        time = 0.0
        for phase, seconds, watts in phases:
            for step in range(round(seconds * 10)):
                rows.append({**run, "time_s": time + step / 10, "phase": phase, "power_w": watts + (step % 3)})
            time += seconds
    return rows


def _intervals(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    phases = [
        ("idle", 0, 0.0, 1.0),
        ("load", 0, 1.0, 2.0),
        ("warmup", 0, 2.2, 3.7),
        *[("window", n, 3.8 + 3.2 * n, 7.0 + 3.2 * n) for n in range(5)],
        ("idle_loaded", 0, 19.8, 20.3),
    ]
    return [
        {**run, "phase": phase, "index": index, "opened_s": opened, "closed_s": closed, "energy_j": 100.0}
        for run in runs
        for phase, index, opened, closed in phases
    ]


def _quality(n_runs: int) -> list[dict[str, Any]]:
    def row(sitting: str, share: float) -> dict[str, Any]:
        wall = 2000.0 * share
        return {
            "campaign": "pilot",
            "sitting": sitting,
            "host": "abcdef",
            "hardware": "NVIDIA H200, 16-core host",
            "energy_method": "nvml_total_energy",
            "started_at_utc": "2026-11-21T10:00:00Z",
            "n_runs": int(n_runs * share),
            "n_ok_runs": int(n_runs * share),
            "n_planned_runs": int(n_runs * share),
            "n_gpus": 1,
            "wall_s": wall,
            "gpu_wall_s": wall,
            "measured_s": 0.8 * wall,
            "measured_fraction": 0.8,
            "idle_fraction": 0.05,
            "load_fraction": 0.05,
            "warmup_fraction": 0.06,
            "rest_fraction": 0.03,
            "between_runs_fraction": 0.01,
            "counter_over_power_median_ratio": 1.002,
            "counter_over_power_p05_ratio": 0.998,
            "counter_over_power_p95_ratio": 1.006,
            "window_cv_median": 0.0158,
            "counter_energy_j": 400 * wall,
            "idle_energy_j": 4.0 * wall,
            "load_energy_j": 6.0 * wall,
            "warmup_energy_j": 20.0 * wall,
            "window_energy_j": 362.0 * wall,
            "rest_energy_j": 6.0 * wall,
            "ledger_closure_fraction": -0.005,
            "runs_closure_fraction": -0.002,
            "between_runs_s": 20.0,
            "between_runs_counter_energy_j": 2400.0,
            "between_runs_idle_energy_j": 1600.0,
            "started_to_first_iteration_median_s": 0.7,
            "temperature_max_c": 61.0,
            "n_warnings": 1,
        }

    return [row("s1", 0.5), row("s2", 0.5), row("all", 1.0)]


def _summary() -> list[dict[str, Any]]:
    rows = []
    for model in ("llama-3.2-1b", "llama-3.2-3b", "all"):
        energies = sorted(joules(m, p, batch) for m, p in JOULES for batch in BATCHES if model in (m, "all"))
        row: dict[str, Any] = {
            "study": "batching",
            "model": model,
            "accounting": "taking_part_gross",
            "n_settings": len(energies),
            "n_runs": 2 * len(energies),
        }
        series = pd.Series(energies)
        for name in ("p05", "p25", "p50", "p75", "p95"):
            row |= with_interval(f"energy_{name}_j_per_output_token", float(series.quantile(int(name[1:]) / 100)))
        row |= with_interval("energy_mean_j_per_output_token", float(series.mean()))
        row |= with_interval("energy_sd_j_per_output_token", float(series.std()))
        row |= with_interval("cv", float(series.std() / series.mean()))
        row |= with_interval("max_over_min_fold", energies[-1] / energies[0])
        row |= with_interval("p95_over_p5_fold", float(series.quantile(0.95) / series.quantile(0.05)))
        rows.append(row)
    return rows


def _curve() -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "precision": precision,
            "batch_size": batch,
            "n_cycles": 2,
            **with_interval("energy_j_per_output_token", joules(model, precision, batch), 0.01),
            **with_interval(
                "throughput_tokens_per_s",
                110.0 * batch * (0.5 if "3b" in model else 1) * (0.8 if precision == "float32" else 1),
                0.01,
            ),
            **with_interval("power_mean_w", 300.0),
            **with_interval("energy_over_batch_1_ratio", (1 / batch + 0.02) / 1.02),
        }
        for model, precision in JOULES
        for batch in BATCHES
    ]


def _equivalence() -> list[dict[str, Any]]:
    common = {
        "model": "llama-3.2-1b",
        "precision": "float16",
        "n_cycles": 2,
        "margin_fraction": 0.02,
        "confidence": 0.9,
        "quantity": "energy_j_per_output_token",
    }
    launcher = [
        {
            **common,
            "study": "launcher",
            "factor": "launcher",
            "level": "cold",
            "baseline": "fork",
            "batch_size": batch,
            "attention": "sdpa_no_cudnn",
            "verdict": verdict,
            "level_over_baseline_ratio": ratio,
            "level_over_baseline_ratio_low": ratio - half,
            "level_over_baseline_ratio_high": ratio + half,
        }
        for batch, ratio, half, verdict in ((8, 1.005, 0.02, "undecided"), (64, 1.005, 0.004, "equivalent"))
    ]
    warmup = [
        {
            **common,
            "study": "warmup",
            "factor": "warmup",
            "level": "forward_passes",
            "baseline": "steady",
            "batch_size": 8,
            "attention": attention,
            "verdict": verdict,
            "level_over_baseline_ratio": ratio,
            "level_over_baseline_ratio_low": ratio * 0.99,
            "level_over_baseline_ratio_high": ratio * 1.01,
        }
        for attention, ratio, verdict in (
            ("sdpa", 2.0, "different"),
            ("sdpa_no_cudnn", 1.0, "equivalent"),
            ("eager", 1.01, "undecided"),
        )
    ]
    return launcher + warmup


def frames() -> dict[str, pd.DataFrame]:
    """Every table of a campaign measured on a GPU."""
    runs = _runs()
    rows = {
        "runs": runs,
        "windows": _windows(runs),
        "intervals": _intervals(runs),
        "iterations": _iterations(runs),
        "samples": _samples(runs),
        "campaign_quality": _quality(len(runs)),
        "energy_summary": _summary(),
        "warnings": [{**runs[3], "code": "counter_power_disagree", "value": 0.031, "detail": "window 2: 3.1 %"}],
        "batch_curve": _curve(),
        "equivalence": _equivalence(),
    }
    made = {name: conformed(tables.TABLES[name], rows.get(name, [])) for name in tables.TABLES}
    return {**made, "cost_range": cost_range(made["runs"], confidence=0.95).table()}


def local_frames() -> dict[str, pd.DataFrame]:
    """The same of a campaign measured on a CPU: one study, CodeCarbon's estimate, no counter, no samples."""
    made = frames()
    keep = {
        name: frame[frame["study"] == "batching"].copy() if "study" in frame else frame.copy()
        for name, frame in made.items()
    }
    for name in ("iterations", "samples", "warnings", "equivalence"):
        keep[name] = keep[name].iloc[:0]
    for name in ("runs", "campaign_quality"):
        keep[name]["energy_method"] = "codecarbon_estimate"
        keep[name]["hardware"] = "2-core CPU host"
    keep["runs"]["gpu_name"] = "some CPU"
    for frame in (keep["runs"], keep["windows"], keep["campaign_quality"]):
        for column in frame.columns:
            if column.startswith("counter_") or column == "ledger_closure_fraction":
                frame[column] = float("nan")
    return {name: tables.conform(frame, tables.TABLES[name]) for name, frame in keep.items()}


def write(results: Path, campaign: str, made: dict[str, pd.DataFrame]) -> Path:
    """Write `made` with about.json and context.json under ``results/campaign/tables``."""
    folder = results / campaign / "tables"
    for name, frame in made.items():
        tables.write(frame, tables.TABLES[name], folder)
    (folder / "about.json").write_text(json.dumps({**ABOUT, "campaign": campaign}), encoding="utf-8")
    (folder / "context.json").write_text(json.dumps(CONTEXT), encoding="utf-8")
    return folder
