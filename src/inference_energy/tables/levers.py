"""Tables on batch size, precision, decoding."""

from __future__ import annotations

from inference_energy.tables.columns import Table, integer, number, text, with_interval

BATCH_KNEE = Table(
    "batch_knee",
    "a model and precision",
    (
        text("model", "model"),
        text("precision", "precision"),
        integer("n_batch_sizes", "different batch sizes"),
        integer("n_runs", "runs"),
        *with_interval(
            "line_per_doubling_ratio", "one line: energy per token after over before a doubling of the batch"
        ),
        *with_interval("n_prompts_at_knee", "broken line: batch size where it bends; ends within the range measured"),
        *with_interval("below_knee_per_doubling_ratio", "broken line: after a doubling over before, below the knee"),
        *with_interval("above_knee_per_doubling_ratio", "broken line: after a doubling over before, above the knee"),
        number("broken_p_value", "of one line against a broken one, simulated under one line"),
        *with_interval("plateau_energy_j_per_output_token", "a of E = a + b / batch: what no batch shares"),
        *with_interval("shared_energy_j_per_step", "b of E = a + b / batch: what the prompts of a batch share"),
        *with_interval("n_prompts_at_equal_parts", "b / a: batch size at which half of the energy is plateau"),
        number("line_cv", "one line: standard deviation of the residuals of log energy"),
        number("broken_cv", "the same of the broken line"),
        number("shared_cv", "the same of E = a + b / batch"),
        number("line_weight_fraction", "Akaike weight (AICc) of one line among the three"),
        number("broken_weight_fraction", "of the broken line; missing where there are too few runs for it"),
        number("shared_weight_fraction", "of E = a + b / batch"),
        text("fits_best", "the law of the largest Akaike weight: one line, broken line or shared cost"),
        text("note", "what cannot be estimated, and why; missing where all can"),
    ),
)

LEVEL_RATIO = Table(
    "level_ratio",
    "a level over its baseline, all else equal: of one setting, or over settings",
    (
        text("factor", "what differs: batch_size, precision or lengths"),
        text("level", "compared level"),
        text("baseline", "compared with"),
        text("scope", "setting, batch 8 and below, above batch 8, or all batch sizes"),
        text("model", "model of a setting; missing over settings"),
        text("precision", "precision of a setting; missing over settings and where it is what differs"),
        integer("batch_size", "batch size of a setting; missing over settings and where it is what differs"),
        integer("n_settings", "settings of the level that have a baseline"),
        integer("n_pairs", "their runs"),
        integer("n_same_sitting", "those compared with a baseline of the same sitting; the others with the campaign's"),
        *with_interval("level_over_baseline_ratio", "geometric mean over runs, then over settings"),
        number("confidence", "level of the interval"),
        text(
            "interval_by",
            "t within or over sittings, spread pooled over settings; or bootstrap over settings and cycles",
        ),
        text("verdict", "less, more or undecided: where the interval lies beside 1"),
        text("note", "why there is no interval; missing where there is one"),
    ),
)

DECODING_EQUIVALENCE = Table(
    "decoding_equivalence",
    "a family of sampling settings, or a single run, against greedy decoding, and a quantity",
    (
        text("family", "all sampling, method, level, temperature or run: what the runs have in common"),
        text("model", "model, of a run"),
        text("sitting", "stretch of measuring, of a run"),
        text("decoding", "method; missing where the family spans methods"),
        integer("top_k", "candidates kept, of a level"),
        number("top_p", "probability mass kept, of a level"),
        number("sampling_temperature", "of a temperature"),
        text("quantity", "column of runs that is compared"),
        integer("n_settings", "sampling settings"),
        integer("n_pairs", "their runs with greedy decoding to compare with"),
        integer("n_same_sitting", "those compared with greedy decoding of the same sitting"),
        integer("n_groups", "models times sittings: runs of one share their baseline and are averaged first"),
        *with_interval("sampling_over_greedy_ratio", "geometric mean within groups, then over groups"),
        number("confidence", "level of the interval: 1 - 2 alpha, for two one-sided tests at alpha"),
        number("p_value", "larger p-value of the two one-sided tests"),
        number("margin_fraction", "what counts as equal"),
        text("verdict", "equivalent, different or undecided"),
        text("note", "why there is no interval; missing where there is one"),
    ),
)

DECODING_TREND = Table(
    "decoding_trend",
    "a trend of energy per token along an order of decoding settings",
    (
        text("trend", "order of methods, candidates, probability mass, temperature, or step time"),
        text("step", "what one step of the trend is"),
        integer("n_runs", "runs"),
        integer("n_settings", "settings"),
        integer("n_groups", "models times sittings, each with a level of its own"),
        *with_interval("per_step_ratio", "energy per token after a step over before, all else equal"),
        number("confidence", "level of the interval"),
        number("p_value", "two-sided, of no trend"),
        text("verdict", "rises, falls or undecided"),
        text("note", "what cannot be estimated, and why; missing where it can"),
    ),
)

TABLES: tuple[Table, ...] = (BATCH_KNEE, LEVEL_RATIO, DECODING_EQUIVALENCE, DECODING_TREND)
