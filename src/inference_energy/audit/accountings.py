"""Energy per token under named accountings, against the number of processes, with what each assumes.

A record of n processes holds n readings of energy and one number of tokens. What one token took
depends on what the readings are of and on which tokens are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from inference_energy.audit.records import Records
from inference_energy.resample import interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Accounting:
    """What is divided by what, and what would have to be true for it."""

    name: str
    words: str
    assumption: str


PUBLISHED = Accounting(
    "published",
    "energies of all processes added, over the tokens of one",
    "each tracker reads other hardware than the others, and all processes together generate the tokens of one",
)
SUM_PER_GENERATED = Accounting(
    "sum_per_generated",
    "energies of all processes added, over the tokens of all",
    "each tracker reads other hardware than the others; each process answers all prompts, and every answer counts",
)
ONCE_PER_COUNTED = Accounting(
    "once_per_counted",
    "the machine once, over the tokens of one process",
    "each tracker reads the whole machine; an answer that another process gives too is worth nothing",
)
ONCE_PER_GENERATED = Accounting(
    "once_per_generated",
    "the machine once, over the tokens of all processes",
    "each tracker reads the whole machine; each process answers all prompts, and every answer counts",
)
GPUS_PER_GENERATED = Accounting(
    "gpus_per_generated",
    "all GPUs once, over the tokens of all processes",
    "as the machine once; CPU and RAM, which are estimates, are left out",
)
WORKING_PER_GENERATED = Accounting(
    "working_gpus_per_generated",
    "the GPUs that work, over the tokens of all processes",
    "as all GPUs once; a GPU without a process draws the idle power that the line through power against processes"
    " gives, and nobody else works on it",
)
WORKING_PER_COUNTED = Accounting(
    "working_gpus_per_counted",
    "the GPUs that work, over the tokens of one process",
    "as the GPUs that work, but an answer that another process gives too is worth nothing",
)
ACCOUNTINGS = (
    PUBLISHED,
    SUM_PER_GENERATED,
    ONCE_PER_COUNTED,
    ONCE_PER_GENERATED,
    GPUS_PER_GENERATED,
    WORKING_PER_COUNTED,
    WORKING_PER_GENERATED,
)


def trackers(records: Records, *, confidence: float, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """What one process's tracker read against the number of processes, by group.

    Runs of settings that were measured with several numbers of processes. If each tracker reads all
    N GPUs of a machine, and n of them work, it reads ``N idle + n (working - idle)``: a straight line whose
    value at none is N idle GPUs. If it read its own GPU alone, power would not depend on n; if it read
    the n that work, the line would pass through 0. The line is that of repeated medians,
    which a run with somebody else's work beside it does not move.

    Parameters
    ----------
    records : Records
        Of any study.
    confidence, n_bootstrap, seed
        Of the percentile bootstrap, which resamples runs within each number of processes.

    Returns
    -------
    DataFrame
        Rows of table ``audit_trackers``; empty where no setting has several numbers of processes.

    References
    ----------
    Siegel (1982), *Biometrika* 69, 242-244; ``scipy.stats.siegelslopes``.
    """
    power = records.over_processes(records.mean_power_w(), "mean")
    runs = records.runs.assign(
        power_w=power,
        power_summed_w=records.over_processes(records.mean_power_w(), "sum"),
        power_least_w=records.over_processes(records.mean_power_w(), "min"),
        power_most_w=records.over_processes(records.mean_power_w(), "max"),
    )[records.comparable()].dropna(subset=["power_w"])
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for group, of_group in runs.groupby("group", sort=True):
        line = _line(of_group, rng, confidence, n_bootstrap)
        for n_processes in sorted(of_group["n_processes"].unique()):
            chosen = of_group[of_group["n_processes"] == n_processes]
            rows.append(
                {
                    "records": records.name,
                    "group": group,
                    "n_processes": int(n_processes),
                    "n_runs": len(chosen),
                    "n_gpus": int(chosen["n_machine_gpus"].iloc[0]),
                    "power_limit_w": float(chosen["power_limit_w"].iloc[0]),
                    **_median(chosen, "power_w", rng, confidence, n_bootstrap),
                    "power_least_w": float(chosen["power_least_w"].min()),
                    "power_most_w": float(chosen["power_most_w"].max()),
                    "power_summed_w": float(chosen["power_summed_w"].median()),
                    **_median(chosen, "duration_s", rng, confidence, n_bootstrap),
                    **line,
                }
            )
    return pd.DataFrame(rows)


def _line(runs: pd.DataFrame, rng: np.random.Generator, confidence: float, n_bootstrap: int) -> dict[str, float]:
    """Base, added, idle and working power (W) of one group, with intervals; missing with one number of processes."""
    names = ("base_power_w", "added_power_w", "idle_gpu_power_w", "working_gpu_power_w")
    n_gpus = float(runs["n_machine_gpus"].iloc[0])
    n_processes, power = runs["n_processes"].to_numpy(float), runs["power_w"].to_numpy(float)
    if len(set(n_processes)) < 2:
        return dict.fromkeys([f"{name}{end}" for name in names for end in ("", "_low", "_high")], np.nan)

    def fitted(x: Floats, y: Floats) -> tuple[float, float, float, float]:
        slope, base = stats.siegelslopes(y, x)
        return base, slope, base / n_gpus, slope + base / n_gpus

    estimate = fitted(n_processes, power)
    places = [np.flatnonzero(n_processes == n) for n in sorted(set(n_processes))]
    resampled = np.empty((n_bootstrap, len(names)))
    for place in range(n_bootstrap):
        chosen = np.concatenate([rng.choice(group, len(group)) for group in places])
        resampled[place] = fitted(n_processes[chosen], power[chosen])
    low, high = interval(resampled, confidence)
    return {
        key: float(value)
        for index, name in enumerate(names)
        for key, value in ((name, estimate[index]), (f"{name}_low", low[index]), (f"{name}_high", high[index]))
    }


def energies(
    records: Records, idle_gpu_power_w: dict[str, float], *, confidence: float, n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Energy per token under every accounting, by group and number of processes.

    Parameters
    ----------
    records : Records
        Of any study; settings that were measured with several numbers of processes are taken.
    idle_gpu_power_w : dict
        Power (W) of a GPU without a process, by group.
    confidence, n_bootstrap, seed
        Of the percentile bootstrap, which resamples runs within a number of processes.

    Returns
    -------
    DataFrame
        Rows of table ``audit_energy``. Energies (J) are medians over runs; the ratio is over the median of one
        process, and missing where none was measured.
    """
    runs = records.runs[records.comparable()]
    per_token = _per_token(records, idle_gpu_power_w).loc[runs.index]
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for group, of_group in runs.groupby("group", sort=True):
        for accounting in ACCOUNTINGS:
            alone: Floats | None = None
            for n_processes in sorted(of_group["n_processes"].unique()):
                chosen = of_group[of_group["n_processes"] == n_processes]
                values = per_token.loc[chosen.index, accounting.name].dropna().to_numpy(float)
                if not len(values):
                    continue
                drawn = _medians(values, rng, n_bootstrap)
                alone = np.append(np.median(values), drawn) if n_processes == 1 else alone
                rows.append(
                    {
                        "records": records.name,
                        "group": group,
                        "accounting": accounting.name,
                        "accounting_words": accounting.words,
                        "assumption": accounting.assumption,
                        "n_processes": int(n_processes),
                        "n_settings": chosen["setting"].nunique(),
                        "n_runs": len(values),
                        **_ends("energy_j_per_output_token", float(np.median(values)), drawn, confidence, len(values)),
                        "energy_p05_j_per_output_token": float(np.percentile(values, 5)),
                        "energy_p95_j_per_output_token": float(np.percentile(values, 95)),
                        **_ratio(values, drawn, alone, confidence, int(n_processes)),
                    }
                )
    return pd.DataFrame(rows)


def _per_token(records: Records, idle_gpu_power_w: dict[str, float]) -> pd.DataFrame:
    """Energy per token (J) of every run under every accounting."""
    runs = records.runs
    n = runs["n_processes"]
    machine = records.over_processes(records.processes["energy_j"], "mean")
    gpus = records.over_processes(records.processes["gpu_energy_j"], "mean")
    duration = records.over_processes(records.processes["duration_s"], "mean")
    idle = (runs["n_machine_gpus"] - n).clip(lower=0) * runs["group"].map(idle_gpu_power_w).astype(float) * duration
    counted, generated = runs["n_tokens_counted"], runs["n_tokens_counted"] * n
    return pd.DataFrame(
        {
            PUBLISHED.name: runs["energy_j"] / counted,
            SUM_PER_GENERATED.name: runs["energy_j"] / generated,
            ONCE_PER_COUNTED.name: machine / counted,
            ONCE_PER_GENERATED.name: machine / generated,
            GPUS_PER_GENERATED.name: gpus / generated,
            WORKING_PER_COUNTED.name: (gpus - idle) / counted,
            WORKING_PER_GENERATED.name: (gpus - idle) / generated,
        }
    )


def _median(
    runs: pd.DataFrame, name: str, rng: np.random.Generator, confidence: float, n_bootstrap: int
) -> dict[str, float]:
    values = runs[name].dropna().to_numpy(float)
    if not len(values):
        return {name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan}
    return _ends(name, float(np.median(values)), _medians(values, rng, n_bootstrap), confidence, len(values))


def _medians(values: Floats, rng: np.random.Generator, n_bootstrap: int) -> Floats:
    """Medians of resamples of `values`."""
    medians: Floats = np.median(rng.choice(values, (n_bootstrap, len(values))), axis=1)
    return medians


def _ends(name: str, estimate: float, resampled: Floats, confidence: float, n: int) -> dict[str, float]:
    """An estimate with its interval; a single value has none."""
    low, high = interval(resampled, confidence) if n > 1 else (np.nan, np.nan)
    return {name: estimate, f"{name}_low": float(low), f"{name}_high": float(high)}


def _ratio(
    values: Floats, drawn: Floats, alone: Floats | None, confidence: float, n_processes: int
) -> dict[str, float]:
    name = "over_one_process_ratio"
    if alone is None:
        return {name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan}
    if n_processes == 1:
        return {name: 1.0, f"{name}_low": 1.0, f"{name}_high": 1.0}
    return _ends(name, float(np.median(values) / alone[0]), drawn / alone[1:], confidence, len(values))
