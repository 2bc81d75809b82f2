"""Typed tables: every column has a type and a description, and is checked when written and read.

A table is kept as Parquet (types) and CSV (for everyone). :func:`data_dictionary` lists every
column of every table with its unit, which follows from its name (:mod:`inference_energy.units`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from inference_energy.errors import AnalysisError
from inference_energy.units import unit_of

STRING, INTEGER, FLOAT, BOOLEAN = "string", "Int64", "float64", "boolean"


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    dtype: str
    description: str

    @property
    def unit(self) -> str:
        """Symbol of the unit; empty for text, counts and ratios."""
        return unit_of(self.name) if self.dtype in (INTEGER, FLOAT) else ""


@dataclass(frozen=True)
class Table:
    """A table: what a row is, and its columns in order."""

    name: str
    row: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        """Names of the columns in order."""
        return [column.name for column in self.columns]


def _text(name: str, description: str) -> Column:
    return Column(name, STRING, description)


def _integer(name: str, description: str) -> Column:
    return Column(name, INTEGER, description)


def _float(name: str, description: str) -> Column:
    return Column(name, FLOAT, description)


def _boolean(name: str, description: str) -> Column:
    return Column(name, BOOLEAN, description)


def _with_interval(name: str, description: str) -> tuple[Column, Column, Column]:
    """An estimate and both ends of its bootstrap interval."""
    return (
        _float(name, description),
        _float(f"{name}_low", f"lower end of the interval of {name}"),
        _float(f"{name}_high", f"upper end of the interval of {name}"),
    )


KEY = (
    _text("campaign", "all runs of one design on one kind of machine"),
    _text("study", "question the setting was chosen for"),
    _text("setting", "readable name and hash of all levels"),
    _integer("cycle", "pass over all settings, from 1"),
)

FACTORS = (
    _text("model", "model, a key of config/models.yaml"),
    _text("engine", "software that generates"),
    _text("weights", "random or hub"),
    _text("precision", "number format of weights and arithmetic"),
    _integer("batch_size", "prompts generated together"),
    _integer("n_prompts", "different prompts of one pass, over all processes"),
    _integer("n_input_tokens", "tokens of every prompt, padding included"),
    _integer("n_output_tokens", "tokens generated for every prompt"),
    _text("prompts", "where prompts come from"),
    _text("attention", "attention kernel"),
    _text("decoding", "how the next token is chosen"),
    _float("sampling_temperature", "divides the logits; missing: 1"),
    _integer("top_k", "candidates kept by top_k"),
    _float("top_p", "probability mass kept by top_p"),
    _text("parallelism", "how several GPUs share the work"),
    _integer("n_gpus", "GPUs that take part"),
    _text("neighbours", "allowed: other runs on other GPUs of the machine meanwhile; none: it was alone"),
    _text("traffic", "simulated waiting"),
    _float("delay_min_s", "shortest simulated delay"),
    _float("delay_max_s", "longest simulated delay"),
    _text("delay_every", "what a delay precedes: batch or query"),
    _float("burst_interval_s", "pause between bursts"),
    _integer("burst_size", "batches or queries in a burst"),
    _text("launcher", "fork or cold"),
    _text("warmup", "warm-up protocol"),
)

ENERGY_PER_TOKEN = _float("energy_j_per_output_token", "gross energy of the GPUs that take part over tokens generated")

RUNS = Table(
    "runs",
    "a run",
    (
        *KEY,
        _text("status", "ok, or the result that stands instead of numbers"),
        _text("status_detail", "reason where status is not ok"),
        *FACTORS,
        _integer("order", "place in the planned order of measuring"),
        _text("sitting", "stretch of measuring on one machine without a break"),
        _text("host", "hash of the host"),
        _text("hardware", "the machine in words"),
        _text("gpu_name", "name the driver reports; the CPU's where no GPU took part"),
        _text("gpu_uuid_hash", "hashes of the UUIDs of the devices that take part"),
        _text("metered_uuid_hash", "hashes of the UUIDs of all metered devices, taking part or not"),
        _integer("n_metered_gpus", "metered devices, taking part or not"),
        _integer("n_visible_gpus", "devices of the machine that the run could see"),
        _integer("n_processes", "processes that generate"),
        _integer("n_attempts", "times the run was started until it gave this result"),
        _float("start_waited_s", "wait for the devices to rest before the run; missing where nothing was gated"),
        _boolean("start_settled", "whether power and temperature came below their limits in time"),
        _float("start_power_over_idle_w", "power after that wait less idle power, GPUs that take part"),
        _float("start_temperature_max_c", "hottest GPU that takes part after that wait"),
        _float("power_limit_w", "power limit of the first device that takes part"),
        _text("started_at_utc", "ISO 8601"),
        _text("ended_at_utc", "ISO 8601"),
        _text("energy_method", "instrument the energies come from"),
        ENERGY_PER_TOKEN,
        _float("energy_net_j_per_output_token", "the same less idle power (bare, from this run) over the windows"),
        _float("energy_uncertainty_j_per_output_token", "standard uncertainty of the instrument, all windows together"),
        _float(
            "energy_codecarbon_j_per_output_token", "CodeCarbon's mean power (GPU, CPU and RAM) times measured seconds"
        ),
        _float("throughput_tokens_per_s", "output tokens over measured seconds"),
        _float("power_mean_w", "energy of the GPUs that take part over measured seconds"),
        _float("duration_s_per_step", "measured seconds over decoding steps (one step: one token for every prompt)"),
        _float("window_cv", "standard deviation over mean of energy per output token between windows"),
        _integer("n_windows", "measured windows"),
        _integer("n_iterations", "iterations in the measured windows"),
        _integer("n_warmup_iterations", "iterations of the warm-up"),
        _integer("n_output_tokens_measured", "output tokens of all measured windows"),
        _float("measured_s", "sum of the windows' durations, simulated waiting included"),
        _float("waited_s", "simulated waiting within the windows, mean over processes"),
        _float("waited_fraction", "of measured seconds"),
        _float("wall_s", "from the process's start to its last reading"),
        _float("idle_s", "idle before loading"),
        _float("load_s", "loading"),
        _float("warmup_s", "warm-up"),
        _float("energy_j", "energy of the GPUs that take part over the windows"),
        _float("energy_idle_devices_j", "over the windows: metered GPUs that take no part; missing without any"),
        _float("idle_energy_j", "idle interval before loading, all metered devices"),
        _float("load_energy_j", "loading, all metered devices"),
        _float("warmup_energy_j", "warm-up, all metered devices"),
        _float("rest_energy_j", "integrated instant power outside the run's intervals, all metered devices"),
        _float("run_energy_j", "counter's difference from the process's start to its end, all metered devices"),
        _float("counter_started_j", "counter at the process's start, all metered devices"),
        _float("counter_ended_j", "counter at the process's end, all metered devices"),
        _float("monotonic_started_s", "the host's monotonic clock at the process's start"),
        _float("sampled_from_s", "first sample of the trace, when the counter's first reading was taken"),
        _float("idle_power_w", "mean power of the idle interval before loading, GPUs that take part"),
        _float("idle_loaded_power_w", "mean power of the idle interval with the model loaded, GPUs that take part"),
        _float("counter_over_power_ratio", "counter's energy over integrated instant power, all windows together"),
        _float("counter_over_codecarbon_gpu_ratio", "mean power by the counter over CodeCarbon's GPU, all windows"),
        _float("started_to_first_iteration_s", "process start to first warm-up iteration, idle left out"),
        _float("temperature_max_c", "hottest GPU temperature over the windows"),
        _float("sm_clock_median_mhz", "median SM clock over the windows"),
        _float("gpu_utilisation_fraction", "mean of NVML's utilisation over the windows"),
        _float("memory_peak_bytes", "peak memory allocated on the device that takes part and needs most"),
        _integer("n_warnings", "warnings of the run"),
        _text("config_sha256", "hash of the resolved campaign"),
        _text("source_sha256", "hash of the package's source"),
        _text("commit", "git commit"),
        _text("driver", "driver version"),
        _text("torch", "version"),
        _text("transformers", "version"),
        _text("model_revision", "pinned commit of the model, or null for random weights"),
        _text("token_ids_sha256", "hash of the prompts"),
        _text("replay_of", "campaign whose traces were replayed; missing for real runs"),
    ),
)

WINDOWS = Table(
    "windows",
    "a measured window",
    (
        *KEY,
        _integer("window", "number within the run, from 0"),
        _text("model", "model"),
        _text("precision", "precision"),
        _integer("batch_size", "batch size"),
        _text("attention", "attention kernel"),
        _text("launcher", "launcher"),
        _text("warmup", "warm-up protocol"),
        _text("sitting", "stretch of measuring"),
        _float("started_s", "on the run's clock"),
        _float("duration_s", "from the opening tick to the end of the work"),
        _float("tail_s", "from the end of the work to the last device's closing tick"),
        _float("waited_s", "simulated waiting, mean over processes"),
        _integer("n_iterations", "whole iterations"),
        _integer("n_output_tokens_measured", "output tokens"),
        _float("energy_j", "counter's difference less the tail, GPUs that take part"),
        _float("tail_energy_j", "waiting power, model loaded, while devices waited for their ticks"),
        _float("counter_energy_j", "counter's difference from opening to closing, GPUs that take part"),
        _float("uncertainty_j", "standard uncertainty of energy_j: both parts, in quadrature"),
        _float("uncertainty_random_j", "edges and resolution: in quadrature over devices and windows"),
        _float("uncertainty_settling_j", "time power takes to settle: one sign, so a sum over devices and windows"),
        _float("energy_power_instant_j", "integrated instant power from tick to tick"),
        _float("energy_power_average_j", "integrated one-second average power from tick to tick"),
        _float("counter_over_power_ratio", "counter over integrated instant power, tick to tick"),
        _float("codecarbon_gpu_power_w", "CodeCarbon's GPU energy over its own duration"),
        ENERGY_PER_TOKEN,
        _float("throughput_tokens_per_s", "output tokens over duration"),
        _float("power_mean_w", "energy over duration"),
    ),
)

INTERVALS = Table(
    "intervals",
    "an interval of a run (idle, load, warm-up, window, idle with the model loaded)",
    (
        *KEY,
        _text("sitting", "stretch of measuring"),
        _text("phase", "idle, load, warmup, window or idle_loaded"),
        _integer("index", "number within the phase, from 0"),
        _float("opened_s", "on the run's clock"),
        _float("closed_s", "on the run's clock"),
        _float("energy_j", "counter's difference over all metered devices"),
        _integer("n_iterations", "whole iterations"),
    ),
)

ITERATIONS = Table(
    "iterations",
    "an iteration, warm-up included",
    (
        *KEY,
        _text("model", "model"),
        _text("precision", "precision"),
        _integer("batch_size", "batch size"),
        _text("attention", "attention kernel"),
        _text("warmup", "warm-up protocol"),
        _text("phase", "warmup or window"),
        _integer("index", "number within the run since its first iteration, from 0"),
        _float("started_s", "since the run's first iteration started, idle waits left out"),
        _float("duration_s", "device synchronised at both ends"),
        _float("duration_s_per_step", "duration over decoding steps"),
        _float("energy_j_per_output_token", "integrated instant power over output tokens; missing without samples"),
    ),
)

WARNINGS = Table(
    "warnings",
    "a warning",
    (
        *KEY,
        _text("code", "what happened"),
        _float("value", "its size"),
        _text("detail", "in words"),
    ),
)

DEVICES = Table(
    "devices",
    "a metered device in a run",
    (
        *KEY,
        _text("sitting", "stretch of measuring"),
        _text("host", "hash of the host"),
        _text("gpu_name", "name the driver reports"),
        _text("gpu_uuid_hash", "hash of the UUID"),
        _boolean("participates", "whether it takes part in the run"),
        _text("status", "status of the run"),
        _text("energy_method", "instrument"),
        _float("monotonic_started_s", "the host's monotonic clock at the process's start"),
        _float("wall_s", "from the process's start to its last reading"),
        _float("sampled_from_s", "first sample of the trace"),
        _float("counter_started_j", "counter at the process's start"),
        _float("counter_ended_j", "counter at the process's end"),
        _float("idle_energy_j", "idle interval before loading, tick to tick; this and the next: 0 without such a one"),
        _float("load_energy_j", "loading, tick to tick"),
        _float("warmup_energy_j", "warm-up, tick to tick"),
        _float("window_energy_j", "windows, tick to tick"),
        _float("idle_loaded_energy_j", "idle interval with the model loaded, tick to tick"),
        _float("rest_energy_j", "integrated instant power outside the intervals"),
        _float("idle_power_w", "mean power of the idle interval before loading"),
        _float("window_power_w", "mean power over the windows, tick to tick"),
    ),
)

DEVICE_CHECKS = Table(
    "device_checks",
    "a visible device before, during or after a run: proof of who worked where",
    (
        *KEY,
        _text("moment", "before, during or after"),
        _float("time_s", "on the run's clock"),
        _text("gpu_uuid_hash", "hash of the UUID"),
        _boolean("metered", "whether the run meters it"),
        _boolean("participates", "whether it takes part in the run"),
        _float("power_w", "instant power"),
        _float("temperature_c", "temperature"),
        _integer("n_own_processes", "processes of this run on it"),
        _integer("n_other_processes", "processes of anyone else on it"),
    ),
)

SAMPLES = Table(
    "samples",
    "a sample of a run's trace, thinned to at most ten a second",
    (
        *KEY,
        _float("time_s", "on the run's clock"),
        _text("phase", "interval the sample falls into, or none"),
        _float("power_w", "instant power of the devices that take part"),
    ),
)

#: What became of the counter's difference: of a GPU in a sitting, and of all GPUs together.
_LEDGER = (
    _float("idle_energy_j", "idle intervals, with and without the model loaded"),
    _float("load_energy_j", "loading"),
    _float("warmup_energy_j", "warm-up"),
    _float("window_energy_j", "measured windows, tails included"),
    _float("rest_energy_j", "what lies between: integrated power inside runs, idle power times time between runs"),
    _float("ledger_closure_fraction", "(sum of the parts - counter) / counter, from first run to last"),
    _float("runs_counter_energy_j", "counter's difference within runs"),
    _float("runs_closure_fraction", "(sum of the parts - counter) / counter, within runs"),
    _float("between_runs_s", "GPU seconds from the end of one run to the first sample of the next"),
    _float("between_runs_counter_energy_j", "counter's difference between runs"),
    _float("between_runs_idle_energy_j", "idle power times time between runs, as counted in the rest"),
    _text("ledger_note", "why there is no ledger; missing where there is one"),
)

SITTINGS = Table(
    "sittings",
    "a GPU in a sitting",
    (
        _text("campaign", "campaign"),
        _text("sitting", "stretch of measuring"),
        _text("host", "hash of the host"),
        _text("gpu_uuid_hash", "hash of the GPU's UUID"),
        _integer("n_runs", "runs in which this GPU took part"),
        _integer("n_ok_runs", "those with numbers"),
        _integer("n_metered_runs", "runs that metered this GPU, taking part or not"),
        _integer("n_gpus", "GPUs that took part in a run of this sitting"),
        _integer("n_machine_runs", "runs of the sitting on all GPUs"),
        _float("wall_s", "first run's start to last run's end of the sitting"),
        _float("measured_s", "windows of runs in which this GPU took part"),
        _float("measured_fraction", "measured seconds over wall seconds"),
        _float("throughput_runs_per_h", "runs of the sitting on all GPUs over wall time"),
        _float("lanes_mean_ratio", "runs at the same time: sum of the runs' wall seconds over the sitting's"),
        _float("counter_energy_j", "counter's difference from this GPU's first run to its last"),
        *_LEDGER,
    ),
)

QUALIFICATIONS = Table(
    "qualifications",
    "a qualification of the instrument: a device in a sitting",
    (
        _text("sitting", "stretch of measuring"),
        _text("made_at_utc", "when"),
        _text("host", "hash of the host"),
        _text("cpu_name", "the host's processor"),
        _integer("n_cpus", "its cores"),
        _text("gpu_name", "device"),
        _text("gpu_uuid_hash", "device"),
        _text("energy_method", "instrument"),
        _float("period_s", "median time between two new values of the counter"),
        _float("resolution_j", "smallest step of the counter"),
        _float("read_latency_s", "median time of one read"),
        _float("idle_power_w", "rested, no process on the device"),
        _float("load_power_w", "by the counter, under matrix products"),
        _float("counter_over_power_ratio", "counter over integrated instant power, under that load"),
        _float("power_lag_s", "how late instant power shows the end of a load"),
        _float("launch_latency_s", "mean time of a kernel launch"),
        _float("launch_latency_sampled_s", "the same beside the sampler"),
        _float("cpu_benchmark_s", "a fixed loop in Python, median of 5"),
    ),
)

CAMPAIGN_QUALITY = Table(
    "campaign_quality",
    "a sitting, or all sittings together",
    (
        _text("campaign", "campaign"),
        _text("sitting", "stretch of measuring, or 'all'"),
        _text("host", "hash of the host"),
        _text("gpu_uuid_hash", "devices"),
        _text("hardware", "the machine in words"),
        _text("energy_method", "instrument"),
        _text("started_at_utc", "first run"),
        _text("ended_at_utc", "last run"),
        _integer("n_runs", "records"),
        _integer("n_ok_runs", "records with numbers"),
        _integer("n_planned_runs", "runs the design asks for"),
        _integer("n_failed_runs", "records of runs that failed at every attempt"),
        _integer("n_out_of_memory_runs", "records of runs without enough memory"),
        _integer("n_gpus", "GPUs that took part in a run"),
        _float("wall_s", "first run's start to last run's end, within sittings"),
        _float("gpu_wall_s", "wall seconds times GPUs that took part in a run of the sitting"),
        _float("measured_s", "windows, each times the GPUs that took part"),
        _float("measured_fraction", "R: measured GPU seconds over wall GPU seconds"),
        _float("idle_fraction", "of wall GPU seconds, with and without the model loaded"),
        _float("load_fraction", "of wall GPU seconds"),
        _float("warmup_fraction", "of wall GPU seconds"),
        _float("rest_fraction", "of wall GPU seconds: within runs, outside intervals: gate, ticks, checks, ending"),
        _float("between_runs_fraction", "of wall GPU seconds: GPUs without a run"),
        _float("counter_over_power_median_ratio", "windows: counter over integrated instant power"),
        _float("counter_over_power_p05_ratio", "5th percentile"),
        _float("counter_over_power_p95_ratio", "95th percentile"),
        _float("window_cv_median", "median over runs of the CV between windows"),
        _float("counter_energy_j", "counter's difference over the sitting, all metered devices"),
        *_LEDGER,
        _float("started_to_first_iteration_median_s", "forked runs: process start to first iteration"),
        _float("temperature_max_c", "hottest GPU temperature"),
        _integer("n_warnings", "warnings"),
        _text("warnings_by_code", "number of warnings of each code"),
        _text("source_sha256", "versions of the package's source that measured"),
        _text("config_sha256", "versions of the resolved campaign that were measured"),
    ),
)

_GROUP = (_text("study", "study"), _text("model", "model, or 'all'"))

ENERGY_SUMMARY = Table(
    "energy_summary",
    "a study and model",
    (
        *_GROUP,
        _integer("n_settings", "settings"),
        _integer("n_runs", "runs"),
        *_with_interval("energy_mean_j_per_output_token", "mean over settings of the cycles' mean"),
        *_with_interval("energy_sd_j_per_output_token", "standard deviation between settings"),
        *_with_interval("cv", "standard deviation over mean, between settings"),
        *_with_interval("energy_p05_j_per_output_token", "5th percentile"),
        *_with_interval("energy_p25_j_per_output_token", "25th percentile"),
        *_with_interval("energy_p50_j_per_output_token", "median"),
        *_with_interval("energy_p75_j_per_output_token", "75th percentile"),
        *_with_interval("energy_p95_j_per_output_token", "95th percentile"),
        *_with_interval("max_over_min_fold", "largest over smallest setting"),
        *_with_interval("p95_over_p5_fold", "95th over 5th percentile"),
    ),
)

VARIABILITY = Table(
    "variability",
    "a component of the variance of log energy per output token",
    (
        _text("study", "study"),
        _text("component", "setting, cycle or window"),
        _integer("n_levels", "settings, runs or windows"),
        *_with_interval("cv", "square root of the component's variance of the logarithm: about a CV"),
        *_with_interval("variance_fraction", "share of the total"),
    ),
)

BATCH_CURVE = Table(
    "batch_curve",
    "a model, precision and batch size",
    (
        _text("model", "model"),
        _text("precision", "precision"),
        _integer("batch_size", "batch size"),
        _integer("n_cycles", "cycles with numbers"),
        *_with_interval("energy_j_per_output_token", "mean over cycles"),
        *_with_interval("throughput_tokens_per_s", "mean over cycles"),
        *_with_interval("power_mean_w", "mean over cycles"),
        *_with_interval("energy_over_batch_1_ratio", "energy per token over that at the smallest batch size"),
    ),
)

EQUIVALENCE = Table(
    "equivalence",
    "a comparison of two levels of one factor, all else equal",
    (
        _text("study", "study"),
        _text("factor", "what differs"),
        _text("level", "compared level"),
        _text("baseline", "compared with"),
        _text("model", "model"),
        _text("precision", "precision"),
        _integer("batch_size", "batch size"),
        _text("attention", "attention kernel"),
        _text("launcher", "launcher"),
        _text("warmup", "warm-up protocol"),
        _text("quantity", "column of runs that is compared"),
        _integer("n_cycles", "pairs of runs"),
        *_with_interval("level_over_baseline_ratio", "geometric mean over cycles of the ratio"),
        _float("confidence", "level of the interval: 1 - 2 alpha, for two one-sided tests at alpha"),
        _float("p_value", "larger p-value of the two one-sided tests"),
        _float("margin_fraction", "what counts as equal"),
        _text("verdict", "equivalent, different or undecided"),
    ),
)

ANCHORS = Table(
    "anchors",
    "a run of an anchor setting and a quantity",
    (
        *KEY,
        _text("model", "model"),
        _text("precision", "precision"),
        _integer("batch_size", "batch size"),
        _text("sitting", "stretch of measuring"),
        _text("host", "hash of the host"),
        _text("gpu_uuid_hash", "devices that take part"),
        _text("started_at_utc", "ISO 8601"),
        _text("quantity", "column of runs"),
        _float("value", "its value, in the unit of its name"),
        _float("over_mean_ratio", "over the mean of the setting on all GPUs, each GPU counting once"),
        _float("over_previous_ratio", "over the run before it on the same GPU"),
        _float("same_gpu_cv", "of the setting: pooled standard deviation of the logarithm on one GPU"),
        _float("between_gpus_cv", "of the setting: standard deviation of the logarithm of the GPUs' means"),
        _float("between_hosts_cv", "of the setting: standard deviation of the logarithm of the hosts' means"),
        _boolean("gpu_bound", "whether the setting keeps the GPU busy: utilisation of 0.9 and more over its windows"),
        _float("same_gpu_largest_fraction", "of the setting: largest over smallest value on one GPU, less 1"),
        _float("margin_fraction", "what counts as equal"),
        _text("verdict", "repeats, differs, or undecided where no GPU has two runs"),
    ),
)

INTERFERENCE = Table(
    "interference",
    "a setting measured alone and beside neighbours, and a quantity",
    (
        _text("setting", "setting measured beside neighbours, or 'GPU-bound together'"),
        _text("model", "model"),
        _text("precision", "precision"),
        _integer("batch_size", "batch size"),
        _text("quantity", "column of runs that is compared"),
        _boolean("gpu_bound", "whether the setting keeps the GPU busy: utilisation of 0.9 and more over its windows"),
        _integer("n_alone", "runs alone on the machine"),
        _integer("n_beside", "runs beside neighbours"),
        _float("n_neighbours", "busy GPUs of others during the runs beside neighbours, mean"),
        *_with_interval("beside_over_alone_ratio", "geometric mean beside neighbours over that alone"),
        _float("confidence", "level of the interval"),
        _float("margin_fraction", "what counts as equal"),
        _text("verdict", "equivalent, different or undecided"),
    ),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        RUNS,
        WINDOWS,
        INTERVALS,
        ITERATIONS,
        SAMPLES,
        DEVICES,
        DEVICE_CHECKS,
        WARNINGS,
        QUALIFICATIONS,
        SITTINGS,
        CAMPAIGN_QUALITY,
        ENERGY_SUMMARY,
        VARIABILITY,
        BATCH_CURVE,
        EQUIVALENCE,
        ANCHORS,
        INTERFERENCE,
    )
}


def conform(frame: pd.DataFrame, table: Table) -> pd.DataFrame:
    """`frame` with exactly the columns of `table`, in order and of their types.

    Raises
    ------
    AnalysisError
        If a column is missing or unknown, or a value does not fit its type.
    """
    missing, unknown = set(table.names) - set(frame.columns), set(frame.columns) - set(table.names)
    if missing or unknown:
        raise AnalysisError(
            f"table {table.name}",
            f"missing columns {sorted(missing)}, unknown columns {sorted(unknown)}",
            "the columns of tables.py",
        )
    try:
        return frame[table.names].astype({column.name: column.dtype for column in table.columns}).reset_index(drop=True)
    except (TypeError, ValueError) as error:
        raise AnalysisError(f"table {table.name}", str(error), "the types of tables.py") from error


def write(frame: pd.DataFrame, table: Table, folder: Path) -> None:
    """Write ``<folder>/<table>.parquet`` and ``.csv``; same frame, same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    conformed = conform(frame, table)
    conformed.to_parquet(folder / f"{table.name}.parquet", index=False)
    conformed.to_csv(folder / f"{table.name}.csv", index=False)


def read(name: str, folder: Path) -> pd.DataFrame:
    """Read table `name` from `folder`.

    Raises
    ------
    AnalysisError
        If the table is unknown, missing or of other columns.
    """
    path = folder / f"{name}.parquet"
    if name not in TABLES:
        raise AnalysisError(str(path), f"{name!r} is no table", f"one of {', '.join(TABLES)}")
    if not path.exists():
        raise AnalysisError(str(path), "no such table", "", "Make it: snakemake --cores all")
    return conform(pd.read_parquet(path), TABLES[name])


def data_dictionary() -> pd.DataFrame:
    """Every column of every table: table, row, column, type, unit, description."""
    return pd.DataFrame(
        [
            (table.name, table.row, column.name, column.dtype, column.unit, column.description)
            for table in TABLES.values()
            for column in table.columns
        ],
        columns=["table", "row", "column", "type", "unit", "description"],
    )
