"""Published records held against physical sense, in words: what was done, what follows, what cannot be known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from inference_energy import tables
from inference_energy.policy.estimates import rows_with
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    counted,
    fold,
    interval,
    known,
    percent,
    quantity,
    span,
    table,
)
from inference_energy.tables import conform
from inference_energy.tables.audits import PUBLISHED

#: Accountings of published records that a table or figure shows, shortly named.
SHOWN = {
    "published": "as published",
    "once_per_counted": "machine once, tokens of one process",
    "once_per_generated": "machine once, tokens of all processes",
    "working_gpus_per_generated": "GPUs that work, tokens of all processes",
}

RATIO = "over_one_process_ratio"
_WORKING = "working_gpus_per_generated"
_ALIKE_FRACTION = 0.05  # what is called as much
ENERGY = "energy_j_per_output_token"
NOT_HERE = "The tables of the audit are not here: they are made by the commands at the end of this page."


@dataclass(frozen=True, kw_only=True)
class Published:
    """The audit of one file of published records; empty tables where it was not made."""

    source: pd.DataFrame
    checks: pd.DataFrame
    trackers: pd.DataFrame
    energy: pd.DataFrame

    @property
    def there(self) -> bool:
        """Whether the audit was made."""
        return len(self.source) > 0

    def check(self, name: str) -> pd.Series:
        """One row of the checks."""
        return rows_with(self.checks, check=name).iloc[0]

    @property
    def limit_w(self) -> float:
        """Power limit of one card (W)."""
        return float(self.source["power_limit_w"].iloc[0])

    @property
    def n_gpus(self) -> int:
        """GPUs of the machine."""
        return int(self.source["n_gpus"].iloc[0])

    def group(self) -> str:
        """The model with most runs among those that several numbers of processes were measured of."""
        return str(self.trackers.groupby("group")["n_runs"].sum().idxmax())


def load_audit(results: str | Path, name: str = "baker") -> Published:
    """Read ``<results>/audit-<name>/tables``; without that folder, empty tables.

    Raises
    ------
    AnalysisError
        If a table is of other columns, or one of several is missing.
    """
    folder = Path(results) / f"audit-{name}" / "tables"
    found = {
        table.name.removeprefix("audit_"): tables.read(table.name, folder)
        if folder.exists()
        else conform(pd.DataFrame(columns=table.names), table)
        for table in PUBLISHED
    }
    return Published(**found)


def audit_source(audit: Published) -> Prose:
    """What was read."""
    if not audit.there:
        return Prose(NOT_HERE)
    row = audit.source.iloc[0]
    same = (
        "the content is the one that the mapping of columns was written for"
        if row["sha256"] == row["sha256_expected"]
        else "**the content differs from the one that the mapping of columns was written for**"
    )
    return Prose(
        f"**{row['title']}**: {counted(row['n_runs'], 'run')} of {row['groups'].replace(', ', ' and ')} on"
        f" {row['n_gpus']} × {row['gpu_name']} (limit {quantity(row['power_limit_w'], 'W')} each;"
        f" {row['power_limit_source']}), from {row['first_at'][:10]} to {row['last_at'][:10]}. Commit"
        f" `{row['commit']}` of"
        f" the public repository; {same}. {row['note']}"
    )


def audit_trackers(audit: Published) -> Finding:
    """Which GPUs each process's tracker read."""
    if not audit.there:
        return Finding(NOT_HERE)
    rows = rows_with(audit.trackers, group=audit.group()).sort_values("n_processes")
    if rows["n_processes"].nunique() < 2:
        return Finding("Which GPUs a tracker read cannot be told, because one number of processes was measured.")
    first, last = rows.iloc[0], rows.iloc[-1]
    seen = (
        f"One tracker read {quantity(first['power_w'], 'W')} of GPU power with {_processes(first['n_processes'])} and"
        f" {quantity(last['power_w'], 'W')} with {_processes(last['n_processes'])}"
    )
    own, working, every = (audit.check(name) for name in ("power_own_gpu", "power_gpus_of_processes", "power_all_gpus"))
    follows = _follows(own, working, every)
    return Finding(f"{seen}, on cards limited to {quantity(audit.limit_w, 'W')}: {follows}.", _evidence(audit, rows))


def _processes(n: int) -> str:
    return "one process" if n == 1 else f"{n} processes"


def _follows(own: pd.Series, working: pd.Series, every: pd.Series) -> str:
    refuted = [row["verdict"] in ("fails", "fails in part") for row in (own, working, every)]
    if refuted == [True, True, False]:
        return "each tracker read all GPUs of the machine"
    if refuted == [True, False, False]:
        return "trackers read more than their own GPU; which, the data do not decide"
    if refuted[-1]:
        return "no card can draw this, whatever a tracker reads"
    return "which GPUs a tracker read, the data do not decide"


def _evidence(audit: Published, rows: pd.DataFrame) -> str:
    """Each hypothesis with its number, as a list."""
    confidence, first = float(audit.source["confidence"].iloc[0]), rows.iloc[0]
    own, working, every = (audit.check(name) for name in ("power_own_gpu", "power_gpus_of_processes", "power_all_gpus"))
    foreign, agree = audit.check("other_gpus_rest"), audit.check("trackers_agree")
    not_working = ", where trackers of the GPUs that work would read none" if first["base_power_w_low"] > 0 else ""
    within = first["working_gpu_power_w_high"] <= audit.limit_w
    as_cards = ": an idle and a working card, both within its limit" if within else ""
    points = [
        f"*Each tracker reads its own GPU.* Then mean power stays below one card's limit. It lies above it in"
        f" {own['n_failing']:,} of {own['n_tested']:,} readings, at most at {own['worst_found']}, so this is"
        f" {_verdict(own)}.",
        f"*Each tracker reads the GPUs that work.* Then, with fewer processes than GPUs, it stays below as many limits."
        f" It lies above in {working['n_failing']} of {working['n_tested']} readings, at most {working['worst_found']}"
        f" against {working['worst_expected']} (run {working['worst_example']}), so this is {_verdict(working)}.",
        f"*Each tracker reads all {audit.n_gpus} GPUs.* Then it stays below {every['worst_expected']}. It does so"
        " within"
        f" {percent(every['tolerance_fraction'])} in {every['n_tested'] - every['n_failing']:,} of"
        f" {every['n_tested']:,} readings (largest {every['worst_found']}): {_verdict(every)}.",
        f"The straight line through power against processes adds {_with_ends(first, 'added_power_w', confidence)}"
        f" for each process and starts at {_with_ends(first, 'base_power_w', confidence)} without any{not_working}."
        f" Read as {audit.n_gpus} GPUs, one idles at {_with_ends(first, 'idle_gpu_power_w', confidence)} and works at"
        f" {_with_ends(first, 'working_gpu_power_w', confidence)}{as_cards}.",
        f"Trackers of one run agree within {percent(agree['tolerance_fraction'])} in"
        f" {agree['n_tested'] - agree['n_failing']:,} of {agree['n_tested']:,} runs (each starts and ends at moments of"
        " its own).",
    ]
    if foreign["n_failing"]:
        busy = (
            f"In {counted(foreign['n_failing'], 'run')} (number {foreign['worst_example']}) a GPU that belonged to"
            " no process"
            " was busy: the server was shared."
        )
        # The run that proves it: the largest reading is of the very run beside which somebody else worked.
        proof = (
            f" Its tracker read {quantity(first['power_most_w'], 'W')}, against a median of"
            f" {quantity(first['power_w'], 'W')}:"
            " somebody else's energy is in the record."
        )
        points.append(busy + (proof if foreign["worst_example"] == working["worst_example"] else ""))
    return bullets(points)


def _verdict(row: pd.Series) -> str:
    return "in agreement with the data" if row["verdict"] == "holds" else "refuted"


def _with_ends(row: pd.Series, name: str, confidence: float) -> str:
    ends = interval(row[f"{name}_low"], row[f"{name}_high"], "W", confidence, row[name])
    return f"{quantity(row[name], 'W')} ({ends})"


def audit_counting(audit: Published) -> Finding:
    """How often the machine's energy is in the published sum, and how many tokens are."""
    if not audit.there:
        return Finding(NOT_HERE)
    summed, limit = audit.check("power_summed"), audit.n_gpus * audit.limit_w
    rows = rows_with(audit.trackers, group=audit.group()).sort_values("n_processes")
    first, last = rows.iloc[0], rows.iloc[-1]
    parts, once = audit.check("energy_summed"), audit.check("tokens_of_one_process")
    every, shared = audit.check("each_answers_all_prompts"), audit.check("prompts_are_shared")
    follows = (
        "its energy was counted once for each process, its tokens once"
        if summed["n_failing"] and parts["verdict"] == once["verdict"] == "holds"
        else "how often its energy was counted does not follow"
    )
    generated = (
        " Each process answered all prompts: n processes generated n times what was counted."
        if every["verdict"] == "holds" and shared["verdict"] == "fails"
        else ""
    )
    return Finding(
        f"Added over {_processes(last['n_processes'])}, GPU power comes to {quantity(last['power_summed_w'], 'W')} on a"
        f" machine that can draw {quantity(limit, 'W')}: {follows}.",
        bullets(
            [
                f"Energy: the published energy of a run is the sum over its processes in {passed(parts)} runs. In"
                f" {summed['n_failing']:,} of {summed['n_tested']:,} runs their GPU power added is more than all cards"
                f" together can draw (median {fold(summed['found_over_expected_median_ratio'])} their limit).",
                f"Tokens counted: prompts times output length, those of one process, in {passed(once)} runs, whatever"
                " the number of processes.",
                f"Tokens generated: the time of a run is that of the batches of **all** prompts in {passed(every)} runs"
                f" of several processes, and of a process's share of them in {passed(shared)}.{generated}",
                f"Time: a run took {quantity(first['duration_s'], 's')} with {_processes(first['n_processes'])} and"
                f" {quantity(last['duration_s'], 's')} with {_processes(last['n_processes'])} (medians).",
            ]
        ),
    )


def passed(row: pd.Series) -> str:
    """``2,669 of 2,669``: how many cases of a check hold."""
    return f"{row['n_tested'] - row['n_failing']:,} of {row['n_tested']:,}"


def audit_energy(audit: Published) -> Finding:
    """Energy per token against processes: as published, and counted once."""
    if not audit.there:
        return Finding(NOT_HERE)
    rows = rows_with(audit.energy, group=audit.group())
    most = rows_with(rows, n_processes=rows["n_processes"].max())
    by_name = most.set_index("accounting")
    if by_name[RATIO].isna().all():
        return Finding("The ratio to one process cannot be estimated, because no run of one process was measured.")
    ratios = by_name[RATIO].astype(float).to_dict()
    n, machine, working = int(most["n_processes"].iloc[0]), ratios["once_per_generated"], ratios[_WORKING]
    idle = (
        " That the machine's energy per token falls is no gain of parallel work: with one process the other GPUs"
        " idle, and"
        " fewer tokens share their idle power."
        if machine < 1
        else ""
    )
    alike = (
        " A GPU that works takes as much for a token beside others as alone."
        if abs(working - 1) < _ALIKE_FRACTION
        else f" A GPU that works takes {fold(working)} for a token beside others."
    )
    return Finding(
        f"With {n} processes a token takes {fold(ratios['published'])} the energy of one process as published,"
        f" {fold(machine)} with the machine and every token counted once, and {fold(working)} on the GPUs that work.",
        f"Between the published number and the energy of the machine for each token generated lies n² = {n * n}: the"
        f" machine counted {n} times, {n} times as many tokens generated as counted.{idle}{alike} A reader who holds"
        " duplicate answers to be worthless divides by the tokens of one process, and then has to ask why they were"
        " generated.",
    )


def audit_energy_table(audit: Published) -> Prose:
    """Energy per token by model, processes and accounting."""
    if not audit.there:
        return Prose(NOT_HERE)
    lines = []
    for (group, n), rows in audit.energy.groupby(["group", "n_processes"], sort=True):
        line = {"model": short_group(str(group)), "processes": n, "runs": rows["n_runs"].max()}
        for name, words in SHOWN.items():
            chosen = rows_with(rows, accounting=name)
            line[words] = "–" if chosen.empty else _energy_cell(chosen.iloc[0])
        lines.append(line)
    return Prose(
        table(pd.DataFrame(lines))
        + "\n\nJoules for an output token, medians over runs with the interval of the median; in brackets the ratio"
        " to one"
        " process. The machine is its GPUs as read, and the assumed power of CPU and memory."
    )


def _energy_cell(row: pd.Series) -> str:
    ends = span(row[f"{ENERGY}_low"], row[f"{ENERGY}_high"], "J", row[ENERGY]) if known(row[f"{ENERGY}_low"]) else ""
    ratio = f" [{fold(row[RATIO])}]" if known(row[RATIO]) else ""
    return quantity(row[ENERGY], "J") + (f" ({ends})" if ends else "") + ratio


def audit_assumptions(audit: Published) -> Prose:
    """What would have to be true for each accounting."""
    if not audit.there:
        return Prose(NOT_HERE)
    rows = audit.energy.drop_duplicates("accounting")
    return table(
        pd.DataFrame(
            {
                "accounting": rows["accounting"].str.replace("_", " "),
                "energy over tokens": rows["accounting_words"],
                "what would have to be true": rows["assumption"],
            }
        )
    )


def short_group(group: str) -> str:
    """A model without the name of its publisher."""
    return group.rpartition("/")[2]
