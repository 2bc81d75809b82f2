"""What each page answers, in a sentence or two at its top, made from the same tables as what follows."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from inference_energy.models.traffic import ALL, OVER_NONE
from inference_energy.policy import arrivals, engines, lengths, phases, sizes
from inference_energy.policy.agreement import anchor_rows
from inference_energy.policy.audit import Published, audit_counting
from inference_energy.policy.audit_beside import audit_own
from inference_energy.policy.batch import RATIO, batch_fit, batch_savings, ratio_rows
from inference_energy.policy.claims import claims_verdicts
from inference_energy.policy.decoding import decoding_verdict
from inference_energy.policy.effects import factor_rows, factors
from inference_energy.policy.estimates import behind, rows_with, said
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.method import launcher, warm_up
from inference_energy.policy.noise import variance_split
from inference_energy.policy.parallelism import growth, several_gpus
from inference_energy.policy.precision import QUANTISED, precision_order
from inference_energy.policy.quality import completeness, device_proof, total
from inference_energy.policy.scenarios import ideal_share, scenario_spread
from inference_energy.policy.speed import convexity, explanation, pareto_front
from inference_energy.policy.spread import deployment_rows, deployment_spread
from inference_energy.policy.traffic import waiting, waiting_power
from inference_energy.policy.wording import Finding, counted, estimate, known, listed, percent


def answer(evidence: Evidence, page: str, audit: Published | None = None) -> Finding:
    """The short answer to the question in the title of a page.

    Parameters
    ----------
    evidence : Evidence
        With the tables that the page itself reads.
    page : str
        Name of the notebook, such as ``05_batch``.
    audit : Published, optional
        Published records, for the page that audits them.
    """
    if page == "13_audit":
        return _audited(evidence, audit)
    return _ANSWERS[page](evidence)


def _trusted(evidence: Evidence) -> Finding:
    row, proof = total(evidence), device_proof(evidence)
    if row is None or not known(row["runs_closure_fraction"]):
        return completeness(evidence)
    whole = "Summed over all runs, the parts of the energy agree with the GPUs' counters within"
    whole += f" {percent(abs(row['runs_closure_fraction']))}."
    part = row["n_runs"] / row["n_planned_runs"]
    cycles = evidence.ok.groupby("setting")["cycle"].nunique()
    once = int((cycles < 2).sum())
    thin = f" {once} of {counted(len(cycles), 'setting')} were measured in one cycle only." if once else ""
    done = "The campaign is complete." if part >= 1 else f"The campaign is {percent(part)} complete."
    return Finding(f"{whole}{_between_hosts(evidence)} {done}{thin}", proof.title)


def _between_hosts(evidence: Evidence) -> str:
    """``From host to host a setting differs by 1.4 % to 12 %``."""
    spread = anchor_rows(evidence).drop_duplicates("setting")["between_hosts_cv"].dropna()
    if spread.empty:
        return ""
    ends = list(dict.fromkeys((percent(spread.min()), percent(spread.max()))))
    return f" From host to host the same setting differs by {' to '.join(ends)} (CV)."


def _spread(evidence: Evidence) -> Finding:
    rows = deployment_rows(evidence)
    rows = rows[rows["p95_over_p5_fold"].notna()]
    if rows.empty:
        return deployment_spread(evidence)
    confidence = evidence.assumptions.confidence
    parts = [
        f"{estimate(row, 'p95_over_p5_fold', '×', confidence)} for {row['model']}"
        for _, row in rows[rows["model"] != "all"].iterrows()
    ]
    return Finding(
        f"Without the extremes (95th over 5th percentile) deployment choices spread the energy of a token"
        f" {listed(parts)}.",
        variance_split(evidence).title,
    )


def _methods(evidence: Evidence) -> Finding:
    return Finding(warm_up(evidence).title, launcher(evidence).title)


def _factors(evidence: Evidence) -> Finding:
    rows = factor_rows(evidence)
    if rows.empty:
        return factors(evidence)
    first = rows.iloc[0]
    words = str(first["words"])
    apart = (
        f" Its levels lie {estimate(first, 'levels_fold', '×', evidence.assumptions.confidence)} apart."
        if known(first["levels_fold"])
        else ""
    )
    share = percent(first["explained_fraction"])
    others = [f"{row['words']} {percent(row['explained_fraction'])}" for _, row in rows.iloc[1:3].iterrows()]
    then = f"Next come {listed(others)}." if len(others) > 1 else ""
    return Finding(
        f"{words[0].upper()}{words[1:]} matters most: it alone explains {share} of the variance of energy per"
        f" token.{apart}",
        then,
    )


def _batch(evidence: Evidence) -> Finding:
    return Finding(batch_savings(evidence).title, batch_fit(evidence).title)


def _precision(evidence: Evidence) -> Finding:
    half = ratio_rows(evidence, "precision", "float32", "all")
    half = half[half["level"] == "float16"]
    quantised = ratio_rows(evidence, "precision", "float16", "all")
    quantised = quantised[quantised["level"].isin(list(QUANTISED))]
    if half.empty or quantised.empty:
        return precision_order(evidence)
    confidence = evidence.assumptions.confidence

    def words(row: pd.Series) -> str:
        return estimate(row, RATIO, "×", confidence)

    each = [f"{row['level']} takes {words(row)}" for _, row in quantised.iterrows()]
    gain = f"float16 takes {words(half.iloc[0])} the energy of float32"
    more = bool((quantised[RATIO] > 1).any())
    return Finding(
        f"Not always: {gain}, but with quantised weights {listed(each)} the energy of float16."
        if more
        else f"Yes, here: {gain}, and with quantised weights {listed(each)} the energy of float16.",
        "Quantised weights are those of the library bitsandbytes; other software may differ.",
    )


def _parallelism(evidence: Evidence) -> Finding:
    return Finding(several_gpus(evidence).title, growth(evidence).title)


def _decoding(evidence: Evidence) -> Finding:
    found = decoding_verdict(evidence)
    rows = evidence.decoding_equivalence
    verdict = rows.loc[rows["family"] == "all sampling", "verdict"] if len(rows) else rows
    opening = {
        "equivalent": "No, not visibly.",
        "different": "Yes.",
        "undecided": "Not decided yet: the interval reaches beyond what counts as equal.",
    }
    return Finding(f"{opening[str(verdict.iloc[0])]} {found.title}") if len(verdict) else Finding(found.title)


def _waiting(evidence: Evidence) -> Finding:
    rows = rows_with(evidence.traffic, setting="all", model="all", quantity=OVER_NONE)
    every = rows_with(rows, waiting=ALL)
    if every.empty or not known(every.iloc[0]["estimate"]):
        return Finding(waiting(evidence).title)
    row = every.iloc[0]
    return Finding(
        f"With waiting a token takes {said(row, '×', evidence.assumptions.confidence)} the energy it takes without, on"
        f" average over {behind(row)}.",
        waiting_power(evidence).title,
    )


def _throughput(evidence: Evidence) -> Finding:
    curves = evidence.throughput.dropna(subset=["elasticity_ratio"])
    if curves.empty:
        return Finding(convexity(evidence).title, explanation(evidence).title)
    falls = int((curves["elasticity_ratio"] < 0).sum())
    opening = "Yes, along the batch size" if falls == len(curves) else "Not always, along the batch size"
    return Finding(
        f"{opening}: energy per token falls as throughput grows in {falls} of {counted(len(curves), 'curve')}.",
        f"{explanation(evidence).title} {pareto_front(evidence).title}",
    )


def _scenarios(evidence: Evidence) -> Finding:
    return Finding(ideal_share(evidence).title, scenario_spread(evidence).title)


def _claims(evidence: Evidence) -> Finding:
    return Finding(claims_verdicts(evidence).title)


def _audited(evidence: Evidence, audit: Published | None) -> Finding:
    own = audit_own(evidence).title
    return Finding(own) if audit is None or not audit.there else Finding(audit_counting(audit).title, own)


_ANSWERS: dict[str, Callable[[Evidence], Finding]] = {
    "01_campaign_quality": _trusted,
    "02_distribution": _spread,
    "03_method": _methods,
    "04_factors": _factors,
    "05_batch": _batch,
    "06_precision": _precision,
    "07_parallelism": _parallelism,
    "08_decoding": _decoding,
    "09_traffic": _waiting,
    "10_throughput": _throughput,
    "11_scenarios": _scenarios,
    "12_claims": _claims,
    "15_engine": engines.answer,
    "16_phases": phases.answer,
    "17_serving": arrivals.answer,
    "18_lengths": lengths.answer,
    "19_size": sizes.answer,
}
