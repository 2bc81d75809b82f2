"""Tables on engines: what they cost beside each other, in one process, and to start."""

from __future__ import annotations

from inference_energy.tables.columns import Table, integer, number, text, with_interval

_MODEL = text("model", "model, or 'all'")
_NOTE = text("note", "why there is no estimate or no interval; missing where there are both")

ENGINE_COMPARISON = Table(
    "engine_comparison",
    "an estimate: a quantity of an engine, or its ratio to another engine's, of one model and batch size or of all",
    (
        text("quantity", "what is compared; its unit is in its name, and a ratio has none"),
        text("engine", "software and how it executes"),
        text("baseline", "engine that it is divided by; missing: no ratio"),
        _MODEL,
        integer("batch_size", "prompts given at once; missing for all"),
        integer("baseline_batch_size", "the same of the baseline"),
        *with_interval("estimate", "geometric mean over runs; over settings where it is of several"),
        number("published_ratio", "what a published study states for the same ratio"),
        integer("n_settings", "settings behind the estimate"),
        integer("n_pairs", "runs behind the estimate; of a ratio, those that have a baseline"),
        integer("n_sitting_pairs", "those whose baseline was measured in the same sitting; missing without a ratio"),
        _NOTE,
    ),
)

SHARING = Table(
    "sharing",
    "a comparison of runs in an engine that serves several, for a quantity",
    (
        text("comparison", "shared over own: an engine that served others before over one of its own; last over first"
             " place: of the runs that share an engine, by the drift with their place"),
        text("quantity", "column of runs that is compared"),
        _MODEL,
        integer("batch_size", "batch size; missing for all"),
        *with_interval("estimate", "ratio"),
        integer("n_settings", "settings behind the estimate"),
        integer("n_pairs", "runs in shared engines behind the estimate"),
        integer("n_sitting_pairs", "those whose partner was measured in the same sitting; missing for a drift"),
        integer("n_places", "runs that the longest process measured; missing unless it is a drift"),
        number("confidence", "level of the interval: 1 - 2 alpha, for two one-sided tests at alpha"),
        number("p_value", "larger p-value of the two one-sided tests"),
        number("margin_fraction", "what counts as equal"),
        text("verdict", "equivalent, different or undecided"),
        _NOTE,
    ),
)  # fmt: skip

ENGINE_START = Table(
    "engine_start",
    "an estimate: what an engine's start costs, or what pays the dearer start of CUDA graphs back",
    (
        text("quantity", "what is estimated: its unit is in its name"),
        text("engine", "software and how it executes"),
        text("model", "model"),
        text("precision", "precision"),
        integer("n_gpus", "GPUs that take part"),
        text("compile_cache", "none: nothing is compiled; new or reused"),
        integer("batch_size", "batch size at which it is paid back; missing for a start"),
        *with_interval("estimate", "geometric mean over starts; of payback from such means"),
        integer("n_starts", "starts behind the estimate"),
        _NOTE,
    ),
)

TABLES: tuple[Table, ...] = (ENGINE_COMPARISON, SHARING, ENGINE_START)
