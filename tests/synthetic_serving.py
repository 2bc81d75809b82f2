"""SYNTHETIC records of engines, phases, mixed lengths and arriving requests: nothing here was measured.

They are those of :mod:`synthetic`, with what an engine that schedules by itself says besides. Prompts of mixed lengths
are padded by a quarter, a tenth where they are sorted.
"""

from __future__ import annotations

from typing import Any

from synthetic import campaign_records, iteration_duration_s, prompts_s, resolved_campaign, schedules, step_duration_s

from inference_energy.config import ResolvedCampaign
from inference_energy.design import expand, served_together
from inference_energy.lengths import input_lengths, output_lengths
from inference_energy.records import Record

_VLLM = {"engine": "vllm", "engine_process": "shared", "prefill": "chunked", "execution": "graphs"}
_BASE = {"model": "llama-3.2-1b", "precision": "bfloat16"}
_PADDING = {"n_prompts": 16, "input_length_cv": 0.48}
_ANSWERS = {"n_output_tokens": 16, "output_length_cv": 0.64}
_SERVER = {**_BASE, **_VLLM, "engine": "vllm_server", "batch_size": 1, "n_prompts": 20, "output_length_cv": 0.5}

STUDIES: dict[str, Any] = {
    "engine": {
        "fixed": {"precision": "bfloat16"},
        "vary": {"model": ["llama-3.2-1b", "llama-3.2-3b"], "batch_size": [1, 8]},
        "settings": [{"engine": "transformers"}, {**_VLLM, "execution": "eager_mode"}, _VLLM],
    },
    "sharing": {
        "fixed": {**_BASE, **_VLLM},
        "vary": {"batch_size": [8, 32], "engine_process": ["own", "shared"]},
        "together": ["engine_process"],
    },
    "phases": {
        "fixed": {"model": "llama-3.2-1b", "batch_size": 1},
        "vary": {"precision": ["float32", "bfloat16"], "n_output_tokens": [1, 64]},
        "together": ["n_output_tokens"],
    },
    "padding": {
        "fixed": {**_BASE, **_PADDING, "n_output_tokens": 1},
        "settings": [
            *({"batch_size": size, **answers} for answers in ({}, _ANSWERS) for size in (1, 2, 4, 8, 16)),
            {"batch_size": 4, "batch_order": "by_length"},
        ],
    },
    "arrival": {
        "fixed": _SERVER,
        "settings": [
            {"arrival": "burst"},
            {"arrival": "fixed", "arrival_requests_per_s": 4},
            {"arrival": "poisson", "arrival_requests_per_s": 4},
        ],
    },
    "output_length": {"fixed": {**_BASE, **_VLLM, "batch_size": 8}, "vary": {"n_output_tokens": [8, 32, 128, 512]}},
    "input_length": {"fixed": {**_BASE, **_VLLM, "batch_size": 8}, "vary": {"n_input_tokens": [128, 512, 2048, 8192]}},
    "model_size": {
        "fixed": {**_BASE, **_VLLM, "batch_size": 32, "n_input_tokens": 100, "n_output_tokens": 100},
        "settings": [
            *(
                {"model": model}
                for model in ("qwen2.5-0.5b", "llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "codellama-34b")
            ),
            {"model": "llama-3.2-1b", "n_input_tokens": 900},
            {"model": "llama-3.1-8b", "parallelism": "tensor", "n_gpus": 2},
        ],
    },
    "prompts_at_once": {"fixed": {**_BASE, **_VLLM}, "vary": {"batch_size": [1, 8, 32, 128]}},
    "quantisation": {
        "fixed": {**_VLLM, "model": "llama-3.1-8b", "batch_size": 8},
        "settings": [
            {"precision": "bfloat16"},
            {"precision": "float8"},
            {"precision": "bfloat16", "parallelism": "tensor", "n_gpus": 2},
        ],
    },
}


def serving_campaign() -> ResolvedCampaign:
    """Two cycles of small versions of the studies."""
    return resolved_campaign(
        name="synthetic-serving",
        seed=1,
        cycle_gap_min_s=60.0,
        base={"n_input_tokens": 16, "n_output_tokens": 16},
        measurement={"window_min_s": 1.1},
        studies={name: {"question": "SYNTHETIC?"} | study for name, study in STUDIES.items()},
    )


def serving_records(resolved: ResolvedCampaign) -> list[Record]:
    """SYNTHETIC records of every run of `resolved`."""
    lists = served_together(expand(resolved))
    first_of = {run.run_id: (runs[0].run_id, place) for runs in lists for place, run in enumerate(runs)}
    return [_served(record, first_of) for record in campaign_records(resolved)]


def _served(record: Record, first_of: dict[str, tuple[str, int]]) -> Record:
    content, levels = record.model_dump(), record.levels
    content["schema_version"] = 3
    content["workload"] |= _lengths(record)
    for interval in content["intervals"]:
        if interval["tokens"] and levels.arrival == "none":
            share = 0.99 * (step_duration_s(levels) + prompts_s(levels)) / iteration_duration_s(levels)
            interval["iteration_first_token_s"] = [share * lasts_s for lasts_s in interval["iteration_duration_s"]]
        if interval["tokens"] and (levels.input_length_cv or levels.output_length_cv):
            interval["tokens"] |= _padded(record, interval["tokens"])
    if schedules(levels):
        content["engine"] = _engine(record)
        content["engine_samples"] = _samples(record)
        content["software"]["vllm"] = "0.22.0"
    if levels.arrival != "none":
        content["requests"] = _requests(record)
    if record.run_id in first_of:
        first, place = first_of[record.run_id]
        content["launch"]["shared"] = {"process": first, "position": place, "first_run": first}
        if place:  # the engine was there: nothing idles without it, and nothing is loaded
            kept = [one for one in content["intervals"] if one["phase"] not in ("idle", "load")]
            content |= {"intervals": kept}
            content["launch"] |= {"started_to_load_s": None, "started_to_first_iteration_s": None, "start": None}
    return Record.model_validate(content)


def _lengths(record: Record) -> dict[str, Any]:
    levels = record.levels
    return {
        "n_input_tokens_of": input_lengths(levels).tolist() if levels.input_length_cv else None,
        "n_output_tokens_of": output_lengths(levels).tolist() if levels.output_length_cv else None,
    }


def _padded(record: Record, tokens: dict[str, Any]) -> dict[str, Any]:
    levels = record.levels
    more = 1.0 if levels.batch_size == 1 else 1.1 if levels.batch_order == "by_length" else 1.25
    computed = {"n_input_tokens": round(tokens["n_input_tokens"] * (more if levels.input_length_cv else 1.0))}
    if levels.output_length_cv:
        computed["n_tokens_generated"] = round(tokens["n_tokens_generated"] * more)
    return computed | {"n_effective_input_tokens": tokens["n_input_tokens"]}


def _engine(record: Record) -> dict[str, Any]:
    graphs = record.levels.execution == "graphs"
    return {
        "name": record.levels.engine,
        "version": "SYNTHETIC",
        "options": {"enforce_eager": not graphs},
        "graph_mode": "FULL_AND_PIECEWISE" if graphs else "NONE",
        "n_graph_sizes": 51 if graphs else 0,
        "attention_backend": "SYNTHETIC",
        "quantisation": None,
        "n_kv_blocks": 1000,
        "n_tokens_per_kv_block": 16,
        "n_sequences_max": 256,
        "n_step_tokens_max": 8192,
        "n_context_tokens_max": 131072,
        "compile_cache": "new" if graphs else "none",
        "start_parts_s": {"weights": 1.0, "graph_capture": 5.0 if graphs else 0.0},
        "n_preemptions": 0,
    }


def _samples(record: Record) -> dict[str, Any]:
    windows = [one for one in record.intervals if one.phase == "window"]
    times = [time_s for one in windows for time_s in (one.opened_s, (one.opened_s + one.work_ended_s) / 2)]
    n = float(record.levels.batch_size)
    return {
        "time_s": times,
        "n_running": [n, n / 2] * len(windows),
        "n_waiting": [0.0] * len(times),
        "kv_cache_fraction": [0.1] * len(times),
    }


def _requests(record: Record) -> dict[str, Any]:
    """Answered one after the other until the work ends; sent one after the other, or all as it begins."""
    levels = record.levels
    (window,) = (one for one in record.intervals if one.phase == "window")
    n, lengths = levels.n_prompts_per_pass, output_lengths(levels).tolist()
    lasts_s = window.work_ended_s - window.opened_s
    scheduled = [window.opened_s + (lasts_s * i / n if levels.arrival_requests_per_s else 0.0) for i in range(n)]
    ended = [window.opened_s + lasts_s * (i + 1) / n for i in range(n)]
    return {
        "scheduled_s": scheduled,
        "sent_s": [time_s + 1e-4 for time_s in scheduled],
        "first_token_s": [planned + 0.2 * (end - planned) for planned, end in zip(scheduled, ended, strict=True)],
        "ended_s": ended,
        "n_input_tokens": input_lengths(levels).tolist(),
        "n_tokens_requested": lengths,
        "n_tokens_counted": lengths,
        "n_tokens_reported": lengths,
        "outcome": ["ok"] * n,
        "detail": [None] * n,
        "client_cpu_s": 0.01,
        "client_wall_s": lasts_s,
    }
