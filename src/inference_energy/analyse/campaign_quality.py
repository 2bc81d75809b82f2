"""How well was the campaign measured? Time well spent, instruments that agree, a ledger that closes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.errors import AnalysisError
from inference_energy.tables import CAMPAIGN_QUALITY, conform

_PARTS = ("idle", "load", "warmup", "window", "rest")
_PARTS_OF_PHASES = {"idle": "idle", "idle_loaded": "idle", "load": "load", "warmup": "warmup", "window": "window"}
_RUN = ["study", "setting", "cycle"]
_CLOSURES = ("ledger_closure_fraction", "runs_closure_fraction")
_SUMMED = (
    "counter_energy_j",
    *(f"{part}_energy_j" for part in _PARTS),
    "runs_counter_energy_j",
    "between_runs_s",
    "between_runs_counter_energy_j",
    "between_runs_idle_energy_j",
)


@dataclass(frozen=True)
class CampaignQuality:
    """Quality of a campaign, sitting by sitting and in all.

    Attributes
    ----------
    sittings : DataFrame
        One row a sitting, and last one for all.
    """

    sittings: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``campaign_quality``."""
        return conform(self.sittings, CAMPAIGN_QUALITY)


def campaign_quality(
    runs: pd.DataFrame,
    intervals: pd.DataFrame,
    windows: pd.DataFrame,
    warnings: pd.DataFrame,
    sittings: pd.DataFrame,
    *,
    n_planned_runs: int,
) -> CampaignQuality:
    r"""Judge a campaign by time, agreement of instruments and energy ledger.

    *Time.* Runs may be measured side by side on several GPUs, so time is counted in GPU seconds:
    :math:`R = \sum` measured seconds x GPUs that take part / (wall seconds x GPUs of the sitting).
    Wall seconds go from the first run's start to the last run's end of a sitting, on the host's
    monotonic clock; load, warm-up and gaps between runs count. The GPUs of a sitting are those that
    took part in any of its runs. With one GPU, R is measured seconds over wall seconds.

    *Agreement.* Counter over integrated instant power of every window: median, 5th and 95th
    percentile.

    *Ledger.* The sum over the GPUs of the sitting of their ledgers, see
    :func:`inference_energy.analyse.sittings.sittings`; missing where one of them is.
    ``runs_closure_fraction`` leaves out what lies between runs.

    Parameters
    ----------
    runs, intervals, windows, warnings, sittings : DataFrame
        The tables of these names.
    n_planned_runs : int
        Runs that the design asks for in the cycles present.

    Raises
    ------
    AnalysisError
        If there are no runs, or a sitting has runs of several hosts.

    References
    ----------
    NVIDIA, *NVML API Reference*, ``nvmlDeviceGetTotalEnergyConsumption``.
    """
    if runs.empty:
        raise AnalysisError("table runs", "no runs", "at least one", "Measure first: snakemake --cores all")
    noted = warnings.merge(runs[[*_RUN, "sitting"]], on=_RUN)
    rows = []
    for sitting, of_sitting in runs.groupby("sitting", sort=True):
        if len(of_sitting["host"].unique()) > 1:
            raise AnalysisError(
                "table runs",
                f"sitting {sitting} has runs of hosts {sorted(of_sitting['host'].unique())}",
                "one host a sitting",
                "A sitting is one stretch of measuring on one machine: name them apart",
            )
        chosen = [frame[frame["sitting"] == sitting] for frame in (windows, noted)]
        rows.append(
            _described(of_sitting, *chosen)
            | {"sitting": sitting}
            | _times(of_sitting, intervals[intervals["sitting"] == sitting])
            | _ledger(sittings[sittings["sitting"] == sitting])
        )
    everything = _described(runs, windows, noted) | {"sitting": "all", "n_planned_runs": n_planned_runs}
    rows.append(everything | _all_sittings(rows))
    return CampaignQuality(_with_fractions(pd.DataFrame(rows)))


def _described(runs: pd.DataFrame, windows: pd.DataFrame, warnings: pd.DataFrame) -> dict[str, object]:
    """What can be said of any set of runs."""
    ratios = windows["counter_over_power_ratio"].dropna()
    median, p05, p95 = np.percentile(ratios, [50, 5, 95]) if len(ratios) else (np.nan,) * 3
    forked = runs[runs["launcher"] == "fork"]
    by_code = warnings["code"].value_counts().sort_index()
    return {
        **{
            name: _joined(runs[name])
            for name in (
                "campaign",
                "host",
                "hardware",
                "energy_method",
                "source_sha256",
                "config_sha256",
            )
        },
        "gpu_uuid_hash": ", ".join(sorted(_gpus(runs))),
        "n_gpus": max(1, len(_gpus(runs))),
        "n_failed_runs": int((runs["status"] == "failed").sum()),
        "n_out_of_memory_runs": int((runs["status"] == "out_of_memory").sum()),
        "started_at_utc": runs["started_at_utc"].min(),
        "ended_at_utc": runs["ended_at_utc"].max(),
        "n_runs": len(runs),
        "n_ok_runs": int((runs["status"] == "ok").sum()),
        "n_planned_runs": None,
        "measured_s": float((runs["measured_s"] * runs["n_gpus"].astype(float)).sum()),
        "counter_over_power_median_ratio": median,
        "counter_over_power_p05_ratio": p05,
        "counter_over_power_p95_ratio": p95,
        "window_cv_median": runs["window_cv"].median(),
        "started_to_first_iteration_median_s": forked["started_to_first_iteration_s"].median(),
        "temperature_max_c": runs["temperature_max_c"].max(),
        "n_warnings": len(warnings),
        "warnings_by_code": ", ".join(f"{code}: {count}" for code, count in by_code.items()),
    }


def _joined(values: pd.Series) -> str:
    return ", ".join(sorted(str(value) for value in values.dropna().unique()))


def _gpus(runs: pd.DataFrame) -> set[str]:
    """GPUs that took part in any of `runs`."""
    return {gpu for joined in runs["gpu_uuid_hash"].dropna() for gpu in joined.split("+") if gpu}


def _times(runs: pd.DataFrame, intervals: pd.DataFrame) -> dict[str, float]:
    """Wall seconds of a sitting, and GPU seconds that they went into."""
    timed = runs[runs["status"] != "failed"]  # a failed run has no readings, perhaps not even a clock's
    starts, ends = timed["monotonic_started_s"], timed["monotonic_started_s"] + timed["wall_s"]
    placed = intervals.merge(runs[[*_RUN, "n_gpus"]], on=_RUN)
    gpu_s = (placed["closed_s"] - placed["opened_s"]) * placed["n_gpus"].astype(float)
    durations = gpu_s.groupby(placed["phase"].map(_PARTS_OF_PHASES)).sum()
    wall_s = float(ends.max() - starts.min()) if len(timed) else np.nan
    busy_s = float((timed["wall_s"] * timed["n_gpus"].astype(float)).sum())
    return {"wall_s": wall_s, "gpu_wall_s": wall_s * max(1, len(_gpus(timed))), "busy_s": busy_s} | {
        f"{part}_s": float(durations.get(part, 0.0)) for part in ("idle", "load", "warmup")
    }


def _with_fractions(rows: pd.DataFrame) -> pd.DataFrame:
    """GPU seconds of each part over those of the wall; the rest is what remains within runs: tails, edges."""
    for part in ("measured", "idle", "load", "warmup", "busy"):
        rows[f"{part}_fraction"] = rows[f"{part}_s"] / rows["gpu_wall_s"]
    inside = rows[["measured_fraction", "idle_fraction", "load_fraction", "warmup_fraction"]].sum(axis=1)
    rows["rest_fraction"] = rows["busy_fraction"] - inside
    rows["between_runs_fraction"] = 1 - rows["busy_fraction"]
    return rows.drop(columns=["idle_s", "load_s", "warmup_s", "busy_s", "busy_fraction"])


def _ledger(gpus: pd.DataFrame) -> dict[str, object]:
    """The sum of the ledgers of a sitting's GPUs, or the notes on those that are missing."""
    notes = {gpu: note for gpu, note in zip(gpus["gpu_uuid_hash"], gpus["ledger_note"], strict=True) if pd.notna(note)}
    if notes or gpus.empty:
        said = "; ".join(dict.fromkeys(notes.values())) or "no device was metered"
        unknown: dict[str, object] = dict.fromkeys([*_SUMMED, *_CLOSURES], np.nan)
        return unknown | {"ledger_note": said}
    total = gpus[list(_SUMMED)].astype(float).sum()
    row: dict[str, object] = {name: float(total[name]) for name in _SUMMED}
    return row | _closures(total) | {"ledger_note": None}


def _closures(total: pd.Series) -> dict[str, float]:
    """(Parts - counter) / counter of sums over GPUs, from first run to last and within runs."""
    parts_j = sum(float(total[f"{part}_energy_j"]) for part in _PARTS)
    within_j = parts_j - float(total["between_runs_idle_energy_j"])
    return {
        "ledger_closure_fraction": parts_j / float(total["counter_energy_j"]) - 1,
        "runs_closure_fraction": within_j / float(total["runs_counter_energy_j"]) - 1,
    }


def _all_sittings(rows: list[dict[str, object]]) -> dict[str, object]:
    """Sums over sittings; no ledger in all unless every sitting has one."""
    frame = pd.DataFrame(rows)
    times = ["wall_s", "gpu_wall_s", "busy_s", "idle_s", "load_s", "warmup_s"]
    total = frame[[*times, *_SUMMED]].astype(float).sum(skipna=False)
    notes = [f"{row['sitting']}: {row['ledger_note']}" for row in rows if row["ledger_note"] is not None]
    sums: dict[str, object] = {str(name): value for name, value in total.items()}
    return sums | _closures(total) | {"ledger_note": "; ".join(notes) or None}
