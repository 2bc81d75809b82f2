"""Tables on checks of published and own records."""

from __future__ import annotations

from inference_energy.tables.columns import Table, integer, number, text, with_interval

_CHECK = (
    text("records", "whose records"),
    text("check", "name of the check"),
    text("kind", "sense: holds of any sound record; hypothesis: holds if records were made so; text: what is stated"),
    text("tested", "what is held against what"),
    text("relation", "how found stands to expected if the check holds"),
    number("tolerance_fraction", "how far found may lie beyond expected"),
    text("counted_in", "what is counted: runs, readings (of a process in a run), settings, GPUs"),
    integer("n_tested", "of these, how many have both values"),
    integer("n_failing", "of these, how many break the relation by more than the tolerance"),
    number("failing_fraction", "failing over tested"),
    number("found_over_expected_median_ratio", "median of found over expected"),
    number("found_over_expected_worst_ratio", "of the worst case"),
    text("worst_found", "of the worst case, with its unit"),
    text("worst_expected", "of the worst case, with its unit"),
    text("worst_example", "the worst case's run"),
    text("verdict", "holds, fails in part, fails, or not testable"),
    text("reason", "why it cannot be tested; missing where it was"),
)

AUDIT_CHECKS = Table("audit_checks", "a check of published records", _CHECK)
AUDIT_OWN = Table("audit_own", "the same check of this campaign's records", _CHECK)
AUDIT_ENERGY = Table(
    "audit_energy",
    "published records: a model, an accounting and a number of processes",
    (
        text("records", "whose records"),
        text("group", "model"),
        text("accounting", "named accounting"),
        text("accounting_words", "what is divided by what"),
        text("assumption", "what would have to be true for it"),
        integer("n_processes", "processes that generate"),
        integer("n_settings", "settings compared"),
        integer("n_runs", "runs"),
        *with_interval("energy_j_per_output_token", "median over runs"),
        number("energy_p05_j_per_output_token", "5th percentile over runs"),
        number("energy_p95_j_per_output_token", "95th percentile over runs"),
        *with_interval("over_one_process_ratio", "energy over that of one process with the same accounting"),
    ),
)

AUDIT_TRACKERS = Table(
    "audit_trackers",
    "published records: what one process's tracker read, by model and number of processes",
    (
        text("records", "whose records"),
        text("group", "model"),
        integer("n_processes", "processes that generate"),
        integer("n_runs", "runs of settings that were measured with several numbers of processes"),
        integer("n_gpus", "GPUs of the machine"),
        number("power_limit_w", "limit of one card"),
        *with_interval("power_w", "mean GPU power that a process's tracker read: median over runs"),
        number("power_least_w", "least of any process"),
        number("power_most_w", "most of any process"),
        number("power_summed_w", "sum over a run's processes: median over runs"),
        *with_interval("duration_s", "of a run: median"),
        *with_interval("base_power_w", "of the model: straight line through power against processes, at none"),
        *with_interval("added_power_w", "of the model: what each process adds, by the same line"),
        *with_interval("idle_gpu_power_w", "base power over the GPUs of the machine, if all of them are read"),
        *with_interval("working_gpu_power_w", "idle and added power together, if all GPUs are read"),
    ),
)

AUDIT_SOURCE = Table(
    "audit_source",
    "a file of published records",
    (
        text("records", "whose records"),
        text("title", "what they are"),
        text("url", "where they are public"),
        text("commit", "commit of that repository"),
        text("sha256", "of the content that was read, unpacked"),
        text("sha256_expected", "of the content that the mapping was written for"),
        integer("n_runs", "rows"),
        text("gpu_name", "GPU"),
        integer("n_gpus", "GPUs of the machine"),
        number("power_limit_w", "limit of one card"),
        text("power_limit_source", "where the limit comes from"),
        text("groups", "models"),
        integer("n_cycles", "numbers of cycles that occur"),
        text("first_at", "first time stamp, as published"),
        text("last_at", "last time stamp"),
        text("stated_source", "where the stated values come from"),
        text("note", "what a reader of the numbers must know"),
        number("confidence", "level of the intervals in the other tables"),
    ),
)

#: Of a file of published records, below ``results/audit-<name>/tables``; no campaign has them.
PUBLISHED = (AUDIT_SOURCE, AUDIT_CHECKS, AUDIT_TRACKERS, AUDIT_ENERGY)

TABLES: tuple[Table, ...] = (*PUBLISHED, AUDIT_OWN)
