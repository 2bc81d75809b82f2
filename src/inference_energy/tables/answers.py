"""Tables of the method and of a first look: quality, batch size, equivalence."""

from __future__ import annotations

from inference_energy.tables.columns import Table, boolean, integer, number, text, with_interval
from inference_energy.tables.measured import KEY

#: What became of the counter's difference: of a GPU in a sitting, and of all GPUs together.
_LEDGER = (
    number("idle_energy_j", "idle intervals, with and without the model loaded"),
    number("load_energy_j", "loading"),
    number("warmup_energy_j", "warm-up"),
    number("window_energy_j", "measured windows, tails included"),
    number("rest_energy_j", "what lies between: integrated power inside runs, idle power times time between runs"),
    number("ledger_closure_fraction", "(sum of the parts - counter) / counter, from first run to last"),
    number("runs_counter_energy_j", "counter's difference within runs"),
    number("runs_closure_fraction", "(sum of the parts - counter) / counter, within runs"),
    number("between_runs_s", "GPU seconds from the end of one run to the first sample of the next"),
    number("between_runs_counter_energy_j", "counter's difference between runs"),
    number("between_runs_idle_energy_j", "idle power times time between runs, as counted in the rest"),
    text("ledger_note", "why there is no ledger; missing where there is one"),
)

SITTINGS = Table(
    "sittings",
    "a GPU in a sitting",
    (
        text("campaign", "campaign"),
        text("sitting", "stretch of measuring"),
        text("host", "hash of the host"),
        text("gpu_uuid_hash", "hash of the GPU's UUID"),
        integer("n_runs", "runs in which this GPU took part"),
        integer("n_ok_runs", "those with numbers"),
        integer("n_metered_runs", "runs that metered this GPU, taking part or not"),
        integer("n_gpus", "GPUs that took part in a run of this sitting"),
        integer("n_machine_runs", "runs of the sitting on all GPUs"),
        number("wall_s", "first run's start to last run's end of the sitting"),
        number("measured_s", "windows of runs in which this GPU took part"),
        number("measured_fraction", "measured seconds over wall seconds"),
        number("throughput_runs_per_h", "runs of the sitting on all GPUs over wall time"),
        number("lanes_mean_ratio", "runs at the same time: sum of the runs' wall seconds over the sitting's"),
        number("counter_energy_j", "counter's difference from this GPU's first run to its last"),
        *_LEDGER,
    ),
)

CAMPAIGN_QUALITY = Table(
    "campaign_quality",
    "a sitting, or all sittings together",
    (
        text("campaign", "campaign"),
        text("sitting", "stretch of measuring, or 'all'"),
        text("host", "hash of the host"),
        text("gpu_uuid_hash", "devices"),
        text("hardware", "the machine in words"),
        text("energy_method", "instrument"),
        text("started_at_utc", "first run"),
        text("ended_at_utc", "last run"),
        integer("n_runs", "records"),
        integer("n_ok_runs", "records with numbers"),
        integer("n_planned_runs", "runs the design asks for"),
        integer("n_failed_runs", "records of runs that failed at every attempt"),
        integer("n_out_of_memory_runs", "records of runs without enough memory"),
        integer("n_gpus", "GPUs that took part in a run"),
        number("wall_s", "first run's start to last run's end, within sittings"),
        number("gpu_wall_s", "wall seconds times GPUs that took part in a run of the sitting"),
        number("measured_s", "windows, each times the GPUs that took part"),
        number("measured_fraction", "R: measured GPU seconds over wall GPU seconds"),
        number("idle_fraction", "of wall GPU seconds, with and without the model loaded"),
        number("load_fraction", "of wall GPU seconds"),
        number("warmup_fraction", "of wall GPU seconds"),
        number("rest_fraction", "of wall GPU seconds: within runs, outside intervals: gate, ticks, checks, ending"),
        number("between_runs_fraction", "of wall GPU seconds: GPUs without a run"),
        number("counter_over_power_median_ratio", "windows: counter over integrated instant power"),
        number("counter_over_power_p05_ratio", "5th percentile"),
        number("counter_over_power_p95_ratio", "95th percentile"),
        number("window_cv_median", "median over runs of the CV between windows"),
        number("counter_energy_j", "counter's difference over the sitting, all metered devices"),
        *_LEDGER,
        number("started_to_first_iteration_median_s", "forked runs: process start to first iteration"),
        number("temperature_max_c", "hottest GPU temperature"),
        integer("n_warnings", "warnings"),
        text("warnings_by_code", "number of warnings of each code"),
        text("source_sha256", "versions of the package's source that measured"),
        text("config_sha256", "versions of the resolved campaign that were measured"),
    ),
)

BATCH_CURVE = Table(
    "batch_curve",
    "a model, precision and batch size",
    (
        text("model", "model"),
        text("precision", "precision"),
        integer("batch_size", "batch size"),
        integer("n_cycles", "cycles with numbers"),
        *with_interval("energy_j_per_output_token", "mean over cycles"),
        *with_interval("throughput_tokens_per_s", "mean over cycles"),
        *with_interval("power_mean_w", "mean over cycles"),
        *with_interval("energy_over_batch_1_ratio", "energy per token over that at the smallest batch size"),
    ),
)

EQUIVALENCE = Table(
    "equivalence",
    "a comparison of two levels of one factor, all else equal",
    (
        text("study", "study"),
        text("factor", "what differs"),
        text("level", "compared level"),
        text("baseline", "compared with"),
        text("model", "model"),
        text("precision", "precision"),
        integer("batch_size", "batch size"),
        text("attention", "attention kernel"),
        text("launcher", "launcher"),
        text("warmup", "warm-up protocol"),
        text("quantity", "column of runs that is compared"),
        integer("n_cycles", "pairs of runs"),
        *with_interval("level_over_baseline_ratio", "geometric mean over cycles of the ratio"),
        number("confidence", "level of the interval: 1 - 2 alpha, for two one-sided tests at alpha"),
        number("p_value", "larger p-value of the two one-sided tests"),
        number("margin_fraction", "what counts as equal"),
        text("verdict", "equivalent, different or undecided"),
    ),
)

ANCHORS = Table(
    "anchors",
    "a run of an anchor setting and a quantity",
    (
        *KEY,
        text("model", "model"),
        text("precision", "precision"),
        integer("batch_size", "batch size"),
        text("sitting", "stretch of measuring"),
        text("host", "hash of the host"),
        text("gpu_uuid_hash", "devices that take part"),
        text("started_at_utc", "ISO 8601"),
        text("quantity", "column of runs"),
        number("value", "its value, in the unit of its name"),
        number("over_mean_ratio", "over the mean of the setting on all GPUs, each GPU counting once"),
        number("over_previous_ratio", "over the run before it on the same GPU"),
        number("same_gpu_cv", "of the setting: pooled standard deviation of the logarithm on one GPU"),
        number("between_gpus_cv", "of the setting: standard deviation of the logarithm of the GPUs' means"),
        number("between_hosts_cv", "of the setting: standard deviation of the logarithm of the hosts' means"),
        boolean("gpu_bound", "whether the setting keeps the GPU busy: utilisation of 0.9 and more over its windows"),
        number("same_gpu_largest_fraction", "of the setting: largest over smallest value on one GPU, less 1"),
        number("margin_fraction", "what counts as equal"),
        text("verdict", "repeats, differs, or undecided where no GPU has two runs"),
    ),
)

INTERFERENCE = Table(
    "interference",
    "a setting measured alone and beside neighbours, and a quantity",
    (
        text("setting", "setting measured beside neighbours, or 'GPU-bound together'"),
        text("model", "model"),
        text("precision", "precision"),
        integer("batch_size", "batch size"),
        text("quantity", "column of runs that is compared"),
        boolean("gpu_bound", "whether the setting keeps the GPU busy: utilisation of 0.9 and more over its windows"),
        integer("n_alone", "runs alone on the machine"),
        integer("n_beside", "runs beside neighbours"),
        number("n_neighbours", "busy GPUs of others during the runs beside neighbours, mean"),
        *with_interval("beside_over_alone_ratio", "geometric mean beside neighbours over that alone"),
        number("confidence", "level of the interval"),
        number("margin_fraction", "what counts as equal"),
        text("verdict", "equivalent, different or undecided"),
    ),
)

TABLES = (SITTINGS, CAMPAIGN_QUALITY, BATCH_CURVE, EQUIVALENCE, ANCHORS, INTERFERENCE)
