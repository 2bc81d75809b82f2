"""MADE-UP runs of the studies `phases` and `padding`, with laws that tests know; nothing here was measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from drawn_campaign import conformed

from inference_energy import tables
from inference_energy.questions import QUESTIONS, Statistics

#: Joules and seconds of one input token in prefill, and of one output token after the first, of the 1B shape.
PREFILL = {"float32": (0.030, 5e-5), "bfloat16": (0.006, 8e-6), "int8": (0.012, 3e-5)}
DECODE = {"float32": (1.6, 0.009), "bfloat16": (1.3, 0.0085), "int8": (4.0, 0.03)}
SIZE = {"llama-3.2-1b": 1.0, "llama-3.1-8b": 6.0}
VLLM = 0.4  # of transformers' energy and time
BATCHES = (1, 4, 8, 16, 64)
HOST = {1: 1.0, 2: 1.05}


def _run(study: str, cycle: int, energy: float, seconds: float, **levels: Any) -> dict[str, Any]:
    named = {"precision": "bfloat16", "model": "llama-3.2-1b", "engine": "transformers", "batch_size": 1}
    named |= {"batch_order": "drawn", "n_prompts": None} | levels
    parts = [named[key] for key in ("model", "precision", "engine", "batch_size", "batch_order")]
    name = "_".join(str(part) for part in (*parts, named["n_input_tokens"], named["n_output_tokens"]))
    n = named["n_prompts"] or 100
    return {
        "campaign": "pilot",
        "study": study,
        "setting": name,
        "cycle": cycle,
        "sitting": f"s{cycle}",
        "status": "ok",
        "weights": "random",
        "decoding": "greedy",
        "parallelism": "none",
        "traffic": "none",
        "attention": "sdpa_no_cudnn",
        "launcher": "fork",
        "warmup": "steady",
        "neighbours": "allowed",
        "n_gpus": 1,
        "hardware": "NVIDIA H200, 16-core host",
        "energy_method": "nvml_total_energy",
        "energy_j": energy * n,
        "energy_j_per_prompt": energy,
        "energy_j_per_output_token": energy / named["n_output_tokens"],
        "measured_s": seconds * n,
        "n_prompts_measured": n,
        "n_iterations": n // named["batch_size"],
        "n_input_tokens_measured": n * named["n_input_tokens"],
        "n_effective_input_tokens_measured": n * named["n_input_tokens"],
        "n_output_tokens_measured": n * named["n_output_tokens"],
        "n_computed_output_tokens_measured": n * named["n_output_tokens"],
        "counter_over_power_ratio": 1.0,
        "prefill_s": np.nan,
        **named,
    }


def _phases(cycle: int, noise: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for model, size in SIZE.items():
        for n_input in (256, 2048):
            for precision in PREFILL:
                for engine in ("transformers", "vllm") if precision == "bfloat16" else ("transformers",):
                    part = VLLM if engine == "vllm" else 1.0
                    (joules, seconds), (step_j, step_s) = PREFILL[precision], DECODE[precision]
                    scale = size * part * HOST[cycle]
                    first_j = (joules * n_input + 1.0) * scale
                    first_s = (seconds * n_input + 0.009) * size * part
                    levels = {"precision": precision, "model": model, "engine": engine, "n_input_tokens": n_input}
                    for n_output in (1, 64):
                        wobble = float(np.exp(0.01 * noise.standard_normal()))
                        energy = (first_j + (n_output - 1) * step_j * scale) * wobble
                        time = first_s + (n_output - 1) * step_s * size * part
                        row = _run("phases", cycle, energy, time, n_output_tokens=n_output, **levels)
                        if n_output > 1:
                            row |= {"prefill_s": first_s * 100, "prefill_energy_j": first_j * 100 * 0.97}
                        rows.append(row)
    return rows


def _padding(cycle: int, noise: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    orders = [(batch, "drawn") for batch in BATCHES] + [(batch, "by_length") for batch in (4, 16)]
    for batch, order in orders:
        padded = 1 + (0.25 if order == "drawn" else 0.02) * np.log2(batch)
        for n_output in (1, 52):
            prefill = 1190 * padded * 0.006 + 2.0 / batch
            computed = 52 * (1 + 0.3 * np.log2(batch))
            decode = (n_output > 1) * (60.0 / batch + 0.3 * computed)
            energy = (prefill + decode) * HOST[cycle] * float(np.exp(0.01 * noise.standard_normal()))
            row = _run(
                "padding", cycle, energy, 0.02 + 0.4 * (n_output > 1), batch_size=batch, batch_order=order,
                n_prompts=64, n_input_tokens=1190, n_output_tokens=n_output, input_length_cv=0.48,
                output_length_cv=0.64 if n_output > 1 else 0.0,
            )  # fmt: skip
            row["n_input_tokens_measured"] = round(64 * 1190 * padded)
            row["n_computed_output_tokens_measured"] = round(64 * (computed if n_output > 1 else 1))
            rows.append(row)
    return rows


def runs() -> pd.DataFrame:
    """Both studies in two cycles."""
    noise = np.random.default_rng(5)
    rows = [row for cycle in HOST for row in (*_phases(cycle, noise), *_padding(cycle, noise))]
    return conformed(tables.RUNS, rows)


def answered(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """`found` as the table `runs`, and the answers of both topics from it."""
    frames = {"runs": found}
    statistics = Statistics(confidence=0.95, n_bootstrap=300, seed=1)
    for name in ("phase_runs", "phases", "padding_runs", "padding", "padding_shape"):
        asked = QUESTIONS[name]
        knobs = {setting: getattr(statistics, setting) for setting in asked.settings}
        frames[name] = asked.function(*(frames[table] for table in asked.inputs), **knobs).table()
    return frames
