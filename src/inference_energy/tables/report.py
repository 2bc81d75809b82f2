"""Tables of the policy report: what the settings span, and the arithmetic of published equivalents."""

from __future__ import annotations

from inference_energy.tables.columns import Table, boolean, integer, number, text, with_interval

COST_RANGE = Table(
    "cost_range",
    "a model and its least, median or most costly setting",
    (
        text("model", "model"),
        text("which", "least, median or most: rank of the setting among those of its model"),
        text("setting", "readable name and hash of all levels"),
        text("precision", "number format of weights and arithmetic"),
        integer("batch_size", "prompts generated together"),
        text("parallelism", "how several GPUs share the work"),
        integer("n_gpus", "GPUs that take part"),
        text("traffic", "simulated waiting"),
        integer("n_settings", "settings of the model that were compared"),
        integer("n_runs", "runs of this setting"),
        *with_interval("energy_j_per_output_token", "geometric mean over the setting's runs"),
        number("repeat_cv", "pooled standard deviation of the logarithm between runs of one setting"),
        integer("n_repeats", "its degrees of freedom: runs less settings, over all models"),
    ),
)

BENCHMARK_GAP = Table(
    "benchmark_gap",
    "an ideal test beside realistic scenarios: a version, accounting and model",
    (
        text("version", "scenarios_text or scenarios_code: as the published text or the published code defines them"),
        text("accounting", "which energy over which tokens: generated, answered or published"),
        text("model", "model"),
        integer("n_scenarios", "realistic scenarios, of R1 to R6, that were measured"),
        integer("n_runs", "runs of A1 and of these"),
        *with_interval("ideal_over_realistic_mean_ratio", "energy per token of A1 over the mean of the realistic ones"),
    ),
)

PUBLISHED_APPLIANCES = Table(
    "published_appliances",
    "an appliance of a published comparison",
    (
        text("appliance", "appliance"),
        text("usage", "one use of it"),
        text("justification", "how the printed energy is derived, as printed"),
        number("printed_energy_kwh", "energy of one use as printed"),
        number("derived_energy_kwh", "what the justification ends with"),
        boolean("energy_follows", "whether they agree within 5 %"),
        number("n_printed_least_responses", "responses for that energy as printed, least efficient setting"),
        number("n_derived_least_responses", "printed energy over the median response of all rows"),
        number("n_printed_most_responses", "responses for that energy as printed, most efficient setting"),
        number("n_derived_most_responses", "printed energy over the median response of all rows"),
        boolean("responses_follow", "whether both agree within 2 % and the rounding of the printed value"),
    ),
)

TABLES = (COST_RANGE, BENCHMARK_GAP, PUBLISHED_APPLIANCES)
