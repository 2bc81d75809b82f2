"""Tables on parallelism, traffic, scenarios."""

from __future__ import annotations

from inference_energy.tables.columns import Table, integer, number, text, with_interval
from inference_energy.tables.measured import ENERGY_PER_TOKEN, KEY

_ACCOUNTING = text("accounting", "which energy over which tokens: generated, answered or published")

#: What an estimate rests on, and why there is none.
_GROUNDS = (
    integer("n_settings", "settings behind the estimate"),
    integer("n_pairs", "runs that have a baseline"),
    integer("n_sitting_pairs", "those whose baseline was measured in the same sitting; the others' in another one"),
    text("note", "why there is no estimate or no interval; missing where there are both"),
)

ACCOUNTINGS = Table(
    "accountings",
    "a run and an accounting",
    (
        *KEY,
        _ACCOUNTING,
        number(ENERGY_PER_TOKEN.name, "energy over output tokens as this accounting counts both"),
        number("throughput_tokens_per_s", "output tokens as this accounting counts them over measured seconds"),
    ),
)

PARALLELISM = Table(
    "parallelism",
    "an estimate: a quantity under an accounting, for a way to share the work, of one setting or of all",
    (
        text("quantity", "what is estimated: its unit is in its name"),
        _ACCOUNTING,
        text("parallelism", "how several GPUs share the work"),
        integer("n_gpus", "GPUs that take part; missing where several numbers go into the estimate"),
        text("model", "model, or 'all'"),
        text("precision", "precision, or 'all'"),
        integer("batch_size", "batch size; missing for all"),
        text("setting", "the setting, or 'all'"),
        *with_interval("estimate", "the estimate"),
        number("published_ratio", "what the published study states for the same quantity"),
        *_GROUNDS,
    ),
)

TRAFFIC = Table(
    "traffic",
    "an estimate: a quantity for a kind of simulated waiting, of one model and batch size, of one setting, or of all",
    (
        text("quantity", "what is estimated: its unit is in its name"),
        text("waiting", "which simulated waiting, or which two are compared"),
        text("model", "model, or 'all'"),
        text("precision", "precision, or 'all'"),
        integer("batch_size", "batch size; missing for all"),
        text("setting", "the setting, or 'all'"),
        number("waited_s", "simulated waiting before a batch, mean over the runs"),
        *with_interval("estimate", "the estimate"),
        *_GROUNDS,
    ),
)

SCENARIOS = Table(
    "scenarios",
    "an estimate: a quantity under an accounting, over the scenarios of one version and model",
    (
        text("quantity", "what is estimated: its unit is in its name"),
        text("version", "scenarios_text or scenarios_code: as the published text or the published code defines them"),
        _ACCOUNTING,
        text("model", "model"),
        text("scenario", "A1 or R1 to R6; missing where the estimate is over several"),
        *with_interval("estimate", "the estimate"),
        number("published_ratio", "what the published study states for the same quantity"),
        integer("n_scenarios", "scenarios R1 to R6 behind the estimate"),
        integer("n_cycles", "cycles in which all of them were measured"),
        integer("n_runs", "runs behind the estimate"),
        text("note", "what is missing; missing where nothing is"),
    ),
)

TABLES: tuple[Table, ...] = (ACCOUNTINGS, PARALLELISM, TRAFFIC, SCENARIOS)
