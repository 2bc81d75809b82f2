"""Is the campaign sound? Sentences on time, instrument, ledger, spread and warnings."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    counted,
    duration,
    known,
    listed,
    not_measured,
    number,
    percent,
    quantity,
    row_with,
    setting_words,
    table,
)

WITHIN_FRACTION = 0.01  #: goal for the counter against integrated power, as the figure's band


#: What each warning says, and what its number is.
WARNINGS: dict[str, tuple[str, str]] = {
    "counter_power_disagree": ("counter and integrated instant power differ over a window", "share"),
    "throttled": ("clocks held back during windows", "share of samples"),
    "other_processes": ("processes of someone else on the GPU during windows", "processes"),
    "short_trace": ("samples do not span the windows", "last sample, s"),
    "no_instant_power": ("no instant power over a window", ""),
    "no_codecarbon": ("CodeCarbon read no GPU over a window", ""),
    "counter_not_read": ("the counter was not read at a window's edge", ""),
    "codecarbon_disagree": ("CodeCarbon's GPU power and the counter's differ over a window", "share"),
    "estimate_only": ("energy is an estimate, there is no counter", ""),
    "start_not_settled": ("started though the GPU was not rested", "W or °C above the limit"),
    "neighbour_seen": ("other GPUs in use though the run was to be alone", "GPUs"),
    "attempts_failed": ("earlier attempts failed", "attempts"),
    "requests_failed": ("requests that were not answered", "requests"),
    "token_counts_disagree": ("the server counts other tokens than the client", "requests"),
    "late_arrivals": ("requests were sent later than planned", "median, s"),
}

#: What tells one run from another.
RUN = ["study", "setting", "cycle"]


def total(evidence: Evidence) -> pd.Series | None:
    """The row of `campaign_quality` for all sittings together."""
    rows = evidence.campaign_quality
    whole = rows[rows["sitting"] == "all"] if len(rows) != 1 else rows
    return whole.iloc[0] if len(whole) else None


def completeness(evidence: Evidence) -> Finding:
    """How many planned runs have a record, and how many of those hold numbers."""
    row = total(evidence)
    if row is None:
        return not_measured("no sitting is recorded")
    failed = evidence.runs[evidence.runs["status"] != "ok"]
    detail = ""
    if len(failed):
        reasons = failed.groupby("status").size()
        detail = "Records without numbers: " + listed([f"{count} {status}" for status, count in reasons.items()]) + "."
    cycles = evidence.ok.groupby("setting")["cycle"].nunique()
    several = f" {counted(len(cycles), 'setting')} are measured, {int((cycles > 1).sum())} of them in several cycles."
    return Finding(
        f"{row['n_runs']:,} of {row['n_planned_runs']:,} runs of the whole design are recorded"
        f" ({percent(row['n_runs'] / row['n_planned_runs'])}), {row['n_ok_runs']:,} of them with numbers.",
        f"{several} {detail}".strip(),
    )


def time_use(evidence: Evidence) -> Finding:
    """Where the wall seconds went."""
    row = total(evidence)
    if row is None or not known(row["measured_fraction"]):
        return not_measured("no sitting has a wall time")
    n_sittings = max(1, len(evidence.campaign_quality) - 1)
    shares = {
        "other work of runs (waiting for a rested GPU, ticks of the counter, checks, ending)": row["rest_fraction"],
        "GPUs without a run": row["between_runs_fraction"],
        "warm-up": row["warmup_fraction"],
        "loading": row["load_fraction"],
        "idle": row["idle_fraction"],
    }
    largest = sorted((item for item in shares.items() if known(item[1])), key=lambda item: -item[1])
    others = listed([f"{name} {percent(share)}" for name, share in largest])
    several = f" (summed over {int(row['n_gpus'])} GPUs)" if row["gpu_wall_s"] > 1.001 * row["wall_s"] else ""
    title = (
        f"{percent(row['measured_fraction'])} of {duration(row['gpu_wall_s'])}{several} at the machine was measured"
        f" windows (R = {number(row['measured_fraction'], 2)}), in {counted(n_sittings, 'sitting')}."
    )
    start = row["started_to_first_iteration_median_s"]
    quick = f" A forked run reached its first iteration after {quantity(start, 's')} (median)." if known(start) else ""
    own = (evidence.ok["measured_s"] / evidence.ok["wall_s"]).median()
    inside = f" Of its own time a run spends {percent(own)} in measured windows (median)." if known(own) else ""
    return Finding(title, f"The other seconds: {others}.{inside}{quick}")


def counter_against_power(evidence: Evidence) -> Finding:
    """Whether two readings of the same GPU agree."""
    ratios = evidence.windows["counter_over_power_ratio"].dropna()
    if ratios.empty:
        return not_measured(f"the counter against integrated power ({evidence.method_words})")
    low, median, high = (float(ratios.quantile(share)) for share in (0.05, 0.5, 0.95))
    inside = float(((ratios - 1).abs() <= WITHIN_FRACTION).mean())
    return Finding(
        f"Counter over integrated instant power: median {number(median, 4)},"
        f" {percent(inside)} of {len(ratios):,} windows within {percent(WITHIN_FRACTION, 1)} of one.",
        f"The middle 90 % of windows lie between {number(low, 4)} and {number(high, 4)}. Both readings come from the"
        " same sensor, so agreement shows that windows were cut in the right place, not that the sensor is right.",
    )


def ledger(evidence: Evidence) -> Finding:
    """Whether the parts of the energy add up to what the counter saw."""
    row = total(evidence)
    if row is None or not known(row["ledger_closure_fraction"]):
        notes = evidence.campaign_quality["ledger_note"].dropna().tolist()
        why = f"; {notes[-1]}" if notes else ""
        return not_measured(f"the energy ledger of the whole campaign ({evidence.method_words}{why})")
    closure = row["ledger_closure_fraction"]
    side = "more" if closure > 0 else "less"
    share = row["window_energy_j"] / row["counter_energy_j"]
    whole = f"the counter's {quantity(row['counter_energy_j'], 'J')}"
    sum_of_parts = (
        f"{percent(abs(closure))} {side} than {whole}" if abs(closure) >= 1e-4 else f"{whole} (within 0.01 %)"
    )
    return Finding(
        f"The parts add up to {sum_of_parts}; {percent(share)} of it was spent in measured windows.",
        _within_and_between(row),
    )


def _within_and_between(row: pd.Series) -> str:
    """What the ledger says of the runs alone, and of the time between them."""
    within, n_s = row["runs_closure_fraction"], row["between_runs_s"]
    side = "more" if within > 0 else "less"
    said = f"Within runs, the parts add up to {percent(abs(within))} {side} than the counter."
    if not n_s > 0:
        return said
    seen_j, idle_j = row["between_runs_counter_energy_j"], row["between_runs_idle_energy_j"]
    return (
        f"{said} Between runs ({duration(n_s)}, summed over GPUs) nothing was sampled: idle power is assumed there,"
        f" {quantity(idle_j / n_s, 'W')}, and the counter saw {quantity(seen_j / n_s, 'W')}, {quantity(seen_j, 'J')}"
        f" instead of {quantity(idle_j, 'J')}. Processes that end, a qualification that was repeated"
        " and attempts that left no record draw more than an idle GPU."
    )


def window_spread(evidence: Evidence) -> Finding:
    """How far the windows of one run lie apart, where the run was warmed up until steady and did not wait."""
    spread = steady_runs(evidence).dropna(subset=["window_cv"])
    if spread.empty:
        return not_measured("the spread between windows")
    worst = row_with(spread, "window_cv")
    waiting = evidence.ok[(evidence.ok["traffic"].fillna("none") != "none")]["window_cv"].dropna()
    apart = (
        f" Runs with simulated waiting stand apart: how many delays fall into a window differs (median CV"
        f" {percent(waiting.median())}, largest {percent(waiting.max())}, {counted(len(waiting), 'run')})."
        if len(waiting)
        else ""
    )
    return Finding(
        f"The windows of a run differ with a CV of {percent(spread['window_cv'].median())} in the median run and"
        f" {percent(worst['window_cv'])} in the worst of {len(spread):,}.",
        f"The worst is {worst['model']}, {worst['precision']}, batch {worst['batch_size']},"
        f" cycle {worst['cycle']} of study {worst['study']}.{apart}",
    )


def steady_runs(evidence: Evidence) -> pd.DataFrame:
    """Runs with numbers that were warmed up until iterations agreed, and in which nothing waits for requests."""
    runs = evidence.ok
    waits = runs["traffic"].fillna("none").ne("none") | runs["arrival"].fillna("none").ne("none")
    return runs[(runs["warmup"] == "steady") & ~waits]


def trace(evidence: Evidence) -> Finding:
    """What one run's power did."""
    run, record = traced_run(evidence), traced_record(evidence)
    if run.empty or record.empty:
        return not_measured("power over time within a run")
    power = run.groupby("phase")["power_w"].mean()
    words = {"idle": "idle", "window": "in measured windows"}
    parts = [f"{quantity(power[phase], 'W')} {word}" for phase, word in words.items() if phase in power]
    row = record.iloc[0]
    return Finding(
        f"{row['model']} in {row['precision']} at batch {row['batch_size']} drew {listed(parts)}.",
        f"An example: cycle {row['cycle']} of setting {row['setting']} in study {row['study']}.",
    )


def traced_run(evidence: Evidence) -> pd.DataFrame:
    """Samples of one run as an example: of those sampled in their windows, the one of median duration."""
    samples = evidence.samples.dropna(subset=["power_w"])
    sampled = samples.loc[samples["phase"] == "window", RUN].drop_duplicates()
    runs = evidence.ok.merge(sampled, on=RUN).sort_values(["wall_s", *RUN])
    return _same_run(samples, runs.iloc[(len(runs) - 1) // 2 :]) if len(runs) else samples.iloc[:0]


def traced_intervals(evidence: Evidence) -> pd.DataFrame:
    """Intervals of the run of :func:`traced_run`."""
    return _same_run(evidence.intervals, traced_run(evidence))


def traced_record(evidence: Evidence) -> pd.DataFrame:
    """The row of `runs` of the run of :func:`traced_run`."""
    return _same_run(evidence.runs, traced_run(evidence))


def soundness(evidence: Evidence) -> Prose:
    """How good the measurement is, in four sentences for readers who know no counters and windows."""
    found = [completeness(evidence).title]
    ratios = (evidence.windows["counter_over_power_ratio"].dropna() - 1).abs()
    if len(ratios):
        found.append(
            "A GPU's energy is read in two ways, which agree within"
            f" {percent(float(ratios.quantile(0.9)))} in nine of ten measured stretches."
        )
    row = total(evidence)
    if row is not None and known(row["ledger_closure_fraction"]):
        found.append(
            "Idle, loading, warm-up and measuring together differ from all the energy that the GPUs counted by"
            f" {percent(abs(row['ledger_closure_fraction']))}; in the sum of all runs by"
            f" {percent(abs(row['runs_closure_fraction']))}."
        )
    spread = steady_runs(evidence)["window_cv"].dropna()
    if len(spread):
        found.append(
            f"Stretches of one deployment's run differ by {percent(spread.median())} in the median run and by"
            f" {percent(spread.max())} in the worst (CV)."
        )
    return Prose(bullets(found).strip())


def _same_run(frame: pd.DataFrame, run: pd.DataFrame) -> pd.DataFrame:
    if run.empty:
        return frame.iloc[:0]
    first = run.iloc[0]
    same: pd.DataFrame = frame[
        (frame["study"] == first["study"]) & (frame["setting"] == first["setting"]) & (frame["cycle"] == first["cycle"])
    ]
    return same


def warning_counts(evidence: Evidence) -> Prose:
    """Warnings in words, with their number, the runs that carry them and their extremes."""
    if evidence.warnings.empty:
        return Prose("No run carries a warning.")
    rows = []
    for code, of_code in evidence.warnings.groupby("code"):
        words, unit = WARNINGS.get(str(code), (str(code), ""))
        values = of_code["value"].dropna()
        extremes = [number(value, 2) for value in dict.fromkeys((values.min(), values.max()))] if len(values) else []
        rows.append(
            {
                "warning": f"{words} (`{code}`)",
                "how many": f"{len(of_code):,}",
                "runs": f"{len(of_code.drop_duplicates(RUN)):,} of {len(evidence.runs):,}",
                "number": f"{' to '.join(extremes)} ({unit})" if extremes and unit else " to ".join(extremes),
            }
        )
    return table(pd.DataFrame(rows))


def side_by_side(evidence: Evidence) -> Finding:
    """How many runs an hour a machine gives with one GPU and with several at the same time."""
    rows = evidence.sittings.drop_duplicates("sitting").dropna(subset=["throughput_runs_per_h"])
    if rows.empty:
        return not_measured("runs per hour")
    rates = rows.groupby("n_gpus").agg(runs=("n_machine_runs", "sum"), wall=("wall_s", "sum"))
    per_hour = rates["runs"] / rates["wall"] * 3600
    said = [
        f"{number(rate)} runs an hour on {counted(n, 'GPU')}" for n, rate in zip(per_hour.index, per_hour, strict=True)
    ]
    lanes = listed([number(value, 2) for value in rows["lanes_mean_ratio"]])
    return Finding(
        f"{counted(len(rows), 'sitting')} gave {listed(said)}.",
        f"Runs of all kinds, waits included; on average {lanes} runs went on at the same time.",
    )


def sittings_table(evidence: Evidence) -> Prose:
    """Every GPU of every sitting: runs, time, ledger."""
    rows = evidence.sittings
    if rows.empty:
        return Prose(not_measured("sittings of a machine with a meter").title)
    return table(
        pd.DataFrame(
            {
                "sitting": rows["sitting"],
                "host": rows["host"],
                "GPU": rows["gpu_uuid_hash"],
                "runs": rows["n_runs"],
                "with numbers": rows["n_ok_runs"],
                "time": [duration(value) for value in rows["wall_s"]],
                "R": [number(value, 2) for value in rows["measured_fraction"]],
                "runs/h, machine": [number(value) for value in rows["throughput_runs_per_h"]],
                "at a time": [number(value, 2) for value in rows["lanes_mean_ratio"]],
                "parts − counter": [
                    percent(value) if known(value) else str(note)
                    for value, note in zip(rows["ledger_closure_fraction"], rows["ledger_note"], strict=True)
                ],
                "within runs": [percent(value) if known(value) else "" for value in rows["runs_closure_fraction"]],
            }
        )
    )


def hosts_table(evidence: Evidence) -> Prose:
    """The host of every sitting, and how its instrument was qualified: medians over its GPUs."""
    rows = evidence.qualifications
    if rows.empty:
        return Prose(not_measured("a qualification of the instrument in each sitting").title)
    shown = []
    for (sitting, host, cpu, n_cpus), of_host in rows.groupby(["sitting", "host", "cpu_name", "n_cpus"], dropna=False):
        median = of_host.select_dtypes("number").median()
        shown.append(
            {
                "sitting": sitting,
                "host": host,
                "processor": f"{cpu}, {n_cpus} cores",
                "GPUs": of_host["gpu_uuid_hash"].nunique(),
                "counter's period": quantity(median["period_s"], "s"),
                "one read": quantity(median["read_latency_s"], "s"),
                "idle": quantity(median["idle_power_w"], "W"),
                "counter over power, under load": number(median["counter_over_power_ratio"], 4),
                "kernel launch": quantity(median["launch_latency_s"], "s"),
                "fixed loop in Python": quantity(median["cpu_benchmark_s"], "s"),
            }
        )
    return table(pd.DataFrame(shown).replace("unknown", ""))


def failures(evidence: Evidence) -> Prose:
    """Every run without numbers, with its reason."""
    rows = evidence.runs[evidence.runs["status"] != "ok"]
    if rows.empty:
        return Prose("None: every recorded run holds numbers.")
    shown = rows.assign(
        levels=[f"{setting_words(row)}, {counted(row['n_gpus'], 'GPU')}" for _, row in rows.iterrows()]
    )[["study", "levels", "cycle", "status", "n_attempts", "status_detail"]]
    shown.columns = pd.Index(["study", "setting", "cycle", "result", "attempts", "reason"])
    return table(shown.fillna(""))


def device_proof(evidence: Evidence) -> Finding:
    """Whether each run worked on its own GPUs and no one else did."""
    checks = evidence.device_checks
    if checks.empty:
        return not_measured("processes and draw of every visible GPU before, during and after each run")
    own = checks[checks["participates"].fillna(value=False).astype(bool)]
    foreign = own[own["n_other_processes"].fillna(0) > 0]
    idle = checks[checks["metered"].fillna(value=False).astype(bool)].drop(own.index)
    during = own[own["moment"] == "during"]
    at_work = float((during["n_own_processes"].fillna(0) > 0).mean())
    n_runs, n_shared = (len(rows.drop_duplicates(RUN)) for rows in (checks, foreign))
    n_visible, n_used = (rows["gpu_uuid_hash"].nunique() for rows in (checks, own))
    spare = (
        f" Metered GPUs that took no part drew {quantity(idle['power_w'].mean(), 'W')} on average." if len(idle) else ""
    )
    n_after = n_runs - len(checks[checks["moment"] == "before"].drop_duplicates(RUN))
    were = "was" if n_after == 1 else "were"
    late = (
        f" {counted(n_after, 'run')} that followed another in its engine {were} looked at afterwards only."
        if n_after
        else ""
    )
    return Finding(
        f"{n_shared:,} of {counted(n_runs, 'run')} shared a GPU with a process of someone else; during runs"
        f" {percent(at_work)} of the GPUs that take part held a process of the run.",
        f"{counted(n_visible, 'GPU')} visible in all, {n_used} took part.{spare}{late}",
    )


def study_state(evidence: Evidence) -> Prose:
    """What there is of every study: settings, cycles, and runs without numbers."""
    lines = []
    for study, question in evidence.about.studies.items():
        rows = evidence.runs[evidence.runs["study"] == study]
        if rows.empty:
            lines.append(f"- **{study}**: {question} Nothing is measured yet.")
            continue
        ok = rows[rows["status"] == "ok"]
        twice = int((ok.drop_duplicates(["setting", "cycle"])["setting"].value_counts() > 1).sum())
        without = rows[rows["status"] != "ok"].groupby("status").size()
        lost = (
            "; without numbers: " + listed([f"{n} {status}" for status, n in without.items()]) if len(without) else ""
        )
        lines.append(
            f"- **{study}**: {question} {counted(ok['setting'].nunique(), 'setting')} with numbers,"
            f" {f'{twice} of them in several cycles' if twice else 'in one cycle'}{lost}."
        )
    return Prose("\n".join(lines) or "No study is named.")
