"""Tables on prefill and decoding apart, and on padding."""

from __future__ import annotations

from inference_energy.tables.columns import Table, integer, number, text, with_interval
from inference_energy.tables.measured import ENERGY_PER_TOKEN, FACTORS, KEY

_SITTING = text("sitting", "stretch of measuring on one machine without a break")
_MATCHED = text("matched", "sitting or campaign: where the run of one token comes from; same run: none is needed")
_PER_PROMPT = number("energy_j_per_prompt", "of the phase, GPUs that take part, over prompts")
_PER_OUTPUT = ENERGY_PER_TOKEN.name

#: What an estimate rests on, and why there is none.
_GROUNDS = (
    integer("n_settings", "settings behind the estimate"),
    integer("n_pairs", "runs behind the estimate; of a ratio, those that have a baseline"),
    integer("n_sitting_pairs", "those whose baseline was measured in the same sitting; missing without a ratio"),
    text("interval_by", "t with the spread between repetitions pooled over settings, or over settings"),
    text("note", "why there is no estimate or no interval; missing where there are both"),
)

PHASE_RUNS = Table(
    "phase_runs",
    "a phase of a run, by one method of telling it apart",
    (
        *KEY,
        *FACTORS,
        _SITTING,
        text("phase", "prefill, with the first output token; or decode, the output tokens after it"),
        text("method", "one token: a run that ends there; difference: to that run; time stamp: within the run"),
        _MATCHED,
        _PER_PROMPT,
        number("duration_s_per_prompt", "seconds of the phase over prompts, batches of one prompt"),
        number("energy_j_per_input_token", "of prefill: over tokens of the prompt; missing for decode"),
        number(_PER_OUTPUT, "of decode: over output tokens after the first; missing for prefill"),
        number("duration_s_per_output_token", "of decode, alike"),
        number("power_mean_w", "energy over duration of the phase"),
        text("note", "why something is missing"),
    ),
)

PHASES = Table(
    "phases",
    "an estimate: a quantity of a phase, or its ratio to a baseline, of one setting or over settings",
    (
        text("quantity", "column of phase_runs; its unit is in its name, a ratio has none"),
        text("phase", "prefill or decode"),
        text("method", "one token, difference or time stamp"),
        text("factor", "what differs from the baseline: precision, engine, method or phase; missing: no ratio"),
        text("baseline", "level of it that the quantity is divided by; missing: no ratio"),
        text("model", "model, or 'all'"),
        text("engine", "software that generates"),
        text("precision", "number format"),
        integer("n_input_tokens", "tokens of a prompt; missing for all"),
        *with_interval("estimate", "geometric mean over runs, then over settings"),
        *_GROUNDS,
    ),
)

PADDING_RUNS = Table(
    "padding_runs",
    "a phase of a run with prompts of mixed lengths in static batches",
    (
        *KEY,
        *FACTORS,
        _SITTING,
        text("phase", "prefill, generation (both phases), or decode: generation less prefill"),
        _MATCHED,
        _PER_PROMPT,
        number("energy_j_per_effective_input_token", "over prompt tokens without padding"),
        number("energy_j_per_computed_input_token", "over prompt tokens with padding; missing for decode"),
        number(_PER_OUTPUT, "over output tokens asked for; of decode, those after the first"),
        number(
            "energy_j_per_computed_output_token", "over output tokens computed until the batch's longest answer ends"
        ),
        number("energy_j_per_computed_token", "of generation: over all tokens computed, input and output"),
        number("computed_over_effective_input_ratio", "prompt tokens with padding over those without"),
        number("computed_over_asked_output_ratio", "output tokens computed over those asked for"),
        text("note", "why something is missing"),
    ),
)

_BATCH = (
    text("quantity", "column of padding_runs; its unit is in its name"),
    text("phase", "prefill, generation or decode"),
    text("model", "model"),
    text("precision", "number format"),
)

PADDING = Table(
    "padding",
    "an estimate: a quantity at a batch size and order, or its ratio to a baseline",
    (
        *_BATCH,
        integer("batch_size", "prompts generated together"),
        text("batch_order", "drawn, or by_length: prompts sorted into batches"),
        text("factor", "batch_size, lowest (the best of the smaller batches) or batch_order; missing: no ratio"),
        text("baseline", "level of it that the quantity is divided by; missing: no ratio"),
        *with_interval("estimate", "geometric mean over runs"),
        *_GROUNDS,
    ),
)

PADDING_SHAPE = Table(
    "padding_shape",
    "a quantity's curve over batch sizes, prompts in the order drawn",
    (
        *_BATCH,
        integer("n_batch_sizes", "different batch sizes"),
        integer("n_runs", "runs"),
        integer("n_prompts_smallest", "smallest batch measured"),
        integer("n_prompts_lowest", "batch with the lowest geometric mean"),
        integer("n_prompts_largest", "largest batch measured"),
        *with_interval("at_smallest_per_doubling_ratio", "after over before a doubling, at the smallest batch"),
        *with_interval("at_largest_per_doubling_ratio", "after over before a doubling, at the largest batch"),
        number("curvature_p_value", "two-sided, of no bend"),
        *with_interval("n_prompts_at_minimum", "where the fitted curve is lowest; missing unless it is a U"),
        number(
            "parabola_p_value",
            "that the curve does not both fall first and rise last: larger of two one-sided p-values",
        ),
        number("inner_p_value", "that no inner batch is below both ends: without a law, Bonferroni over inner batches"),
        number("u_p_value", "the larger of these two; a U shows where both are small"),
        text("shape", "U, falls, levels off (falls, and no rise shows), rises, inverted U or undecided"),
        text("note", "why it cannot be fitted; missing where it can"),
    ),
)

TABLES: tuple[Table, ...] = (PHASE_RUNS, PHASES, PADDING_RUNS, PADDING, PADDING_SHAPE)
