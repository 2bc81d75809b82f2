"""What became of the requests of every run, and what they took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.errors import AnalysisError
from inference_energy.tables import KEY, conform
from inference_energy.tables.arrivals import ARRIVAL_RUNS

_KEYS = [column.name for column in KEY]
_OK = "ok"
_LATENCIES = {
    "time_to_first_token": "time_to_first_token_s",
    "inter_token_latency": "inter_token_latency_s",
    "latency": "latency_s",
}


@dataclass(frozen=True)
class ArrivalRuns:
    """One row a run with requests."""

    runs: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``arrival_runs``."""
        return conform(self.runs, ARRIVAL_RUNS)


def arrival_runs(runs: pd.DataFrame, requests: pd.DataFrame) -> ArrivalRuns:
    """Count requests and tokens, and say when requests came, were answered and what one took.

    Energy is that of the windows: a window is a pass, from its first planned arrival to its last answer, so pauses
    between requests are in it. It is divided by the requests that were answered in full; what a request took that
    failed is thus borne by the others.

    Parameters
    ----------
    runs, requests : DataFrame
        The tables of these names. Runs without numbers are left out.

    Raises
    ------
    AnalysisError
        If a run with arrivals has numbers and no requests.
    """
    chosen = runs[runs["energy_j"].notna() & runs["arrival"].fillna("none").ne("none")]
    of_run = dict(iter(requests.groupby(_KEYS, sort=False)))
    rows = []
    for _, run in chosen.iterrows():
        key = tuple(run[name] for name in _KEYS)
        if key not in of_run:
            name = f"{run['study']}/{run['setting']} in cycle {run['cycle']}"
            raise AnalysisError("table requests", f"no request of {name}", "those of its record", "Aggregate anew")
        rows.append(_row(run, of_run[key]))
    return ArrivalRuns(pd.DataFrame(rows).reindex(columns=ARRIVAL_RUNS.names))


def _row(run: pd.Series, requests: pd.DataFrame) -> dict[str, object]:
    answered = requests[requests["outcome"] == _OK]
    others = requests.loc[requests["outcome"] != _OK, "outcome"].value_counts().sort_index()
    error_s = (requests["sent_s"] - requests["scheduled_s"]).dropna()
    kept = {name: run.get(name) for name in ARRIVAL_RUNS.names if name in run.index}
    idle_j = float(run["idle_power_w"]) * float(run["measured_s"])
    return kept | {
        "n_kv_cache_tokens": run["n_kv_blocks"] * run["n_tokens_per_kv_block"],
        "n_requests": len(requests),
        "n_ok_requests": len(answered),
        "n_failed_requests": len(requests) - len(answered),
        "failures": ", ".join(f"{n} {outcome}" for outcome, n in others.items()) or None,
        **_tokens(requests, answered),
        **_rates(requests, int(run["n_prompts"])),
        "answered_requests_per_s": len(answered) / float(run["measured_s"]),
        "arrival_error_median_s": error_s.median(),
        "arrival_error_p95_s": error_s.quantile(0.95),
        "client_core_at_100_requests_fraction": 100 * run["client_cpu_s"] / len(requests),
        "n_in_flight_max": n_in_flight_max(requests),
        "energy_j_per_request": run["energy_j"] / len(answered) if len(answered) else np.nan,
        "energy_net_j_per_request": (run["energy_j"] - idle_j) / len(answered) if len(answered) else np.nan,
        **{
            f"{name}_{word}_s": answered[column].quantile(at)
            for name, column in _LATENCIES.items()
            for word, at in (("median", 0.5), ("p95", 0.95))
        },
    }


def _tokens(requests: pd.DataFrame, answered: pd.DataFrame) -> dict[str, object]:
    """Tokens of all requests, and how many answers do not hold what was asked for."""
    reported = answered["n_tokens_reported"].fillna(answered["n_tokens_counted"])
    equal = (answered["n_tokens_counted"] == answered["n_tokens_requested"]) & (
        reported == answered["n_tokens_requested"]
    )
    every = answered["n_tokens_reported"].notna().all() and len(answered) > 0
    return {
        "n_tokens_requested": requests["n_tokens_requested"].sum(),
        "n_tokens_counted": requests["n_tokens_counted"].sum(),
        "n_tokens_reported": requests["n_tokens_reported"].sum() if every else None,
        "n_disagreeing_requests": int((~equal).sum()),
    }


def _rates(requests: pd.DataFrame, n_prompts: int) -> dict[str, float]:
    """Rates of arrival as planned and as sent: gaps of all passes over their time."""
    passes = requests.groupby(requests["request"] // n_prompts)

    def rate(name: str) -> float:
        seconds = float((passes[name].max() - passes[name].min()).sum())
        return float((passes[name].count() - 1).sum()) / seconds if seconds > 0 else float("nan")

    return {"planned_requests_per_s": rate("scheduled_s"), "sent_requests_per_s": rate("sent_s")}


def n_in_flight_max(requests: pd.DataFrame) -> int:
    """Most requests that were sent and had not ended at one time: the server cannot have run more together."""
    sent = requests.dropna(subset=["sent_s", "ended_s"])
    moments = np.concatenate([sent["sent_s"].to_numpy(float), sent["ended_s"].to_numpy(float)])
    steps = np.repeat([1, -1], len(sent))
    order = np.lexsort((steps, moments))  # one that ends as another is sent makes room first
    return int(np.cumsum(steps[order]).max(initial=0))
