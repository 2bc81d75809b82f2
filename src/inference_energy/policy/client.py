"""Whether requests were answered in full and sent on time, and what the client took, in words."""

from __future__ import annotations

import pandas as pd

from inference_energy.models.arrivals import CORE_AIM_FRACTION, LATE_AIM_S, PATTERNS
from inference_energy.policy.arrivals import WHAT
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    bullets,
    counted,
    listed,
    not_measured,
    percent,
    quantity,
)


def served(evidence: Evidence) -> Finding:
    """How many requests were answered in full, and how exactly they were sent."""
    runs = evidence.arrival_runs
    if runs.empty:
        return not_measured(WHAT)
    n, n_failed = int(runs["n_requests"].sum()), int(runs["n_failed_requests"].sum())
    wrong = int(runs["n_disagreeing_requests"].sum())
    title = (
        f"All {n:,} requests were answered with the tokens asked for."
        if n_failed == 0
        else f"{n_failed:,} of {n:,} requests failed: energy per request is that of the {n - n_failed:,} others."
    )
    failures = [
        f"{row['setting']}, cycle {row['cycle']}: {row['failures']}"
        for _, row in runs[runs["failures"].notna()].iterrows()
    ]
    counts = (
        "Tokens asked for, counted here and reported by the server agree in every answer."
        if wrong == 0
        else f"In {wrong:,} answers tokens asked for, counted and reported do not agree."
    )
    return Finding(
        title,
        f"{counts} {_late(runs)} A request that is sent waits for no other: when the server falls behind, requests"
        f" queue. {_client(runs)}{bullets(failures) if failures else ''}",
    )


def _late(runs: pd.DataFrame) -> str:
    """How late requests left, those of a burst apart, beside the aim."""
    burst = runs["arrival"].eq("burst")
    parts = [
        f"{quantity(of_kind['arrival_error_median_s'].max(), 's')} in the median of the latest run {words}"
        f" ({quantity(of_kind['arrival_error_p95_s'].max(), 's')} at the 95th percentile)"
        for of_kind, words in ((runs[~burst], "with gaps"), (runs[burst], "all at once"))
        if len(of_kind)
    ]
    late = runs[runs["arrival_error_median_s"] > LATE_AIM_S]
    aim = f"is missed in {len(late)} of {counted(len(runs), 'run')}" if len(late) else "is met in every run"
    if len(late) and late["arrival"].eq("burst").all():
        aim += ", all of them bursts: a client sends one request after the other"
    return f"Requests left late by {listed(parts)}. The aim of {quantity(LATE_AIM_S, 's', 1)} in the median {aim}."


def _client(runs: pd.DataFrame) -> str:
    """Processor time of the client beside the aim."""
    shares = runs["client_core_at_100_requests_fraction"]
    taken, at_100 = (
        " to ".join(dict.fromkeys(percent(value) for value in (of.min(), of.max())))
        for of in (shares * runs["answered_requests_per_s"] / 100, shares)
    )
    aim = (
        "within" if shares.max() <= CORE_AIM_FRACTION else "more than" if shares.min() > CORE_AIM_FRACTION else "around"
    )
    return (
        f"The client takes {taken} of a processor core. For 100 requests a second that is {at_100}, {aim} the"
        f" {percent(CORE_AIM_FRACTION, 1)} that was the aim: where few requests are under way, it wakes up for each"
        " piece of an answer. Energy here is the GPU's, so the client is in none of these numbers."
    )


def errors(evidence: Evidence) -> pd.DataFrame:
    """Requests that were sent, each with ``late_s``: sent less planned time, and ``series``: the pattern in words."""
    sent = evidence.requests.dropna(subset=["sent_s"])
    return sent.assign(late_s=sent["sent_s"] - sent["scheduled_s"], series=sent["arrival"].map(PATTERNS))
