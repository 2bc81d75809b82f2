"""Own records under the checks and the accountings of published ones, in words."""

from __future__ import annotations

import pandas as pd

from inference_energy.models.parallelism import ENERGY_RATIO
from inference_energy.policy.audit import RATIO, Published, short_group
from inference_energy.policy.estimates import rows_with
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import Finding, Prose, counted, fold, known, listed, not_measured, span, table

#: The accounting of our table `parallelism` that counts as that of `audit_energy` does.
BESIDE = {
    "published": "published",
    "answered": "working_gpus_per_counted",
    "generated": "working_gpus_per_generated",
}
BESIDE_WORDS = {
    "published": "as published",
    "answered": "GPUs that work, tokens of one process",
    "generated": "GPUs that work, tokens of all processes",
}


def audit_own(evidence: Evidence) -> Finding:
    """The same checks of this campaign's records."""
    rows = evidence.audit_own
    tested = rows[rows["verdict"] != "not testable"]
    sense = rows_with(tested, kind="sense")
    if sense.empty:
        return not_measured("anything that a check of sense could be made of")
    bad = sense[sense["verdict"] != "holds"]
    failing = [
        f"{row['check'].replace('_', ' ')} ({row['n_failing']} of {row['n_tested']})" for _, row in bad.iterrows()
    ]
    said = "all hold in every case" if bad.empty else f"these fail in some cases: {listed(failing)}"
    missing = rows_with(rows, kind="sense", verdict="not testable")
    text = rows_with(rows, check="cycles")
    cycles = text.iloc[0] if len(text) else None
    thin = (
        f" {cycles['n_failing']} of {counted(cycles['n_tested'], 'setting')} are measured in fewer cycles than the"
        " protocol"
        f" asks for ({cycles['worst_expected']})."
        if cycles is not None and cycles["n_failing"]
        else ""
    )
    return Finding(
        f"{counted(len(sense), 'check')} of sense could be made of this campaign's own records: {said}.",
        f"{counted(len(missing), 'check')} could not be made, with the reason beside each.{thin}",
    )


def audit_beside_rows(evidence: Evidence, audit: Published) -> pd.DataFrame:
    """Ratios to one process: published records and this campaign, under the same accountings.

    Returns
    -------
    DataFrame
        ``records``, ``accounting`` (as in ``BESIDE``), ``words``, ``n_processes``, ``n_runs``, ``ratio`` and its ends.
    """
    parts = []
    for name, of_published in BESIDE.items():
        if audit.there:
            rows = rows_with(audit.energy, group=audit.group(), accounting=of_published)
            parts.append(
                pd.DataFrame(
                    {
                        "records": f"published records, {short_group(audit.group())}",
                        "accounting": name,
                        "words": BESIDE_WORDS[name],
                        "n_processes": rows["n_processes"],
                        "n_runs": rows["n_runs"],
                        **{f"ratio{end}": rows[f"{RATIO}{end}"] for end in ("", "_low", "_high")},
                    }
                )
            )
        own = rows_with(
            evidence.parallelism,
            quantity=ENERGY_RATIO,
            parallelism="replicas_duplicated",
            setting="all",
            accounting=name,
        ).dropna(subset=["estimate"])
        if len(own):
            alone = {"n_processes": 1, "n_runs": pd.NA, "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}
            ours = pd.DataFrame(
                {
                    "n_processes": own["n_gpus"],
                    "n_runs": own["n_pairs"],
                    **{f"ratio{end}": own[f"estimate{end}"] for end in ("", "_low", "_high")},
                }
            )
            parts.append(
                pd.concat([pd.DataFrame([alone]), ours]).assign(
                    records=f"campaign {evidence.about.campaign}", accounting=name, words=BESIDE_WORDS[name]
                )
            )
    columns = ["records", "accounting", "words", "n_processes", "n_runs", "ratio", "ratio_low", "ratio_high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def audit_beside(evidence: Evidence, audit: Published) -> Finding:
    """Our duplicated replicas under the published accounting, beside the published records."""
    rows = audit_beside_rows(evidence, audit)
    own = rows[rows["records"].str.startswith("campaign")]
    if own.empty:
        return not_measured("duplicated replicas on several GPUs, beside one GPU with all else equal")
    published = rows[~rows["records"].str.startswith("campaign")]
    most = int(own["n_processes"].max())
    ours = own[own["n_processes"] == most].set_index("accounting")["ratio"].astype(float)
    theirs = published[published["n_processes"] == most].set_index("accounting")["ratio"].astype(float)
    n_pairs = int(own[own["n_processes"] == most]["n_runs"].iloc[0])
    beside = f" (published records: {fold(theirs['published'])})" if len(theirs) else ""
    alike = f" (published records, by the line: {fold(theirs['generated'])})" if len(theirs) else ""
    return Finding(
        f"On GPUs with a meter each, {most} duplicated replicas seem to take {fold(ours['published'])}"
        " the energy"
        f" of one for a token if counted as published{beside}, and take {fold(ours['generated'])} if"
        " every GPU and"
        f" token counts once{alike}.",
        f"{counted(n_pairs, 'pair')} of runs with {most} processes and with one, all else"
        " equal. The same runs"
        " give both numbers: what differs is the counting. GPUs without a process are counted with the idle power that"
        " the run's own GPUs had; the published total also has assumed CPU and memory power, which ours leaves out.",
    )


def audit_beside_table(evidence: Evidence, audit: Published) -> Prose:
    """The same as a table."""
    rows = audit_beside_rows(evidence, audit)
    if rows.empty:
        return Prose("There is nothing to set side by side.")
    shown = rows[rows["n_processes"] > 1]
    lines = []
    for (records, n), of_n in shown.groupby(["records", "n_processes"], sort=True):
        line = {"records": records, "processes": n, "runs": of_n["n_runs"].iloc[0]}
        for _, row in of_n.iterrows():
            ends = (
                f" ({span(row['ratio_low'], row['ratio_high'], '×', row['ratio'])})" if known(row["ratio_low"]) else ""
            )
            line[row["words"]] = fold(row["ratio"]) + ends
        lines.append(line)
    return Prose(table(pd.DataFrame(lines)) + "\n\nEnergy per token over that of one process, with intervals.")


def audit_rerun(audit: Published) -> Prose:
    """How to download the file, check it and audit it again."""
    if not audit.there:
        source = "the address in `resources/audit/baker.yaml`"
        return Prose(
            f"Download the file from {source}, then\n\n```\ninference-energy audit controlled_results.csv"
            " --mapping resources/audit/baker.yaml --to results/audit-baker\n```"
        )
    row = audit.source.iloc[0]
    return Prose(
        "The file is not part of this project. Download it, check that it is the same, and audit it:\n\n```\n"
        f"curl -L -o controlled_results.csv {row['url']}\n"
        f"echo '{row['sha256']}  controlled_results.csv' | sha256sum --check\n"
        "inference-energy audit controlled_results.csv --mapping resources/audit/baker.yaml --to results/audit-baker\n"
        "```\n\nThe tables under `results/audit-baker` hold no row of the file. A table of another study needs a"
        " mapping of its"
        " own: which column is what, and in which unit."
    )
