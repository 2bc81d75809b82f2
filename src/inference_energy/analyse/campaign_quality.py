"""How well was the campaign measured? Time well spent, instruments that agree, a ledger that closes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.errors import AnalysisError
from inference_energy.tables import CAMPAIGN_QUALITY, conform

_PARTS = ("idle", "load", "warmup", "window", "rest")
_PARTS_OF_PHASES = {"idle": "idle", "idle_loaded": "idle", "load": "load", "warmup": "warmup", "window": "window"}
_OVERLAP_S = 1e-6  # two runs that touch do not overlap


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
    runs: pd.DataFrame, intervals: pd.DataFrame, windows: pd.DataFrame, warnings: pd.DataFrame, *, n_planned_runs: int
) -> CampaignQuality:
    r"""Judge a campaign by time, agreement of instruments and energy ledger.

    *Time.* :math:`R = \sum` measured seconds / wall seconds, where wall seconds go from the first
    run's start to the last run's end of a sitting, on the host's monotonic clock; load, warm-up and
    gaps between runs count.

    *Agreement.* Counter over integrated instant power of every window: median, 5th and 95th
    percentile.

    *Ledger.* Over a sitting, in J and for all visible devices,

    .. math:: \mathrm{idle} + \mathrm{load} + \mathrm{warmup} + \mathrm{windows} + \mathrm{rest}
              \approx \mathrm{counter_{last\ end}} - \mathrm{counter_{first\ start}},

    and ``ledger_closure_fraction`` is (left - right) / right. The rest uses no counter, so closing
    is a test: inside runs it is instant power integrated over what no interval covers; between runs,
    from the last reading of one to the first sample of the next, it is time times idle power, with
    the median over the sitting's runs of the idle power before loading (ASSUME: the devices are idle
    between two runs; a process that takes long to go away draws more). ``ledger_note`` says why a ledger is missing.

    Parameters
    ----------
    runs, intervals, windows, warnings : DataFrame
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
    noted = warnings.merge(runs[["study", "setting", "cycle", "sitting"]], on=["study", "setting", "cycle"])
    rows = []
    for sitting, of_sitting in runs.groupby("sitting", sort=True):
        if len(of_sitting["host"].unique()) > 1:
            raise AnalysisError(
                "table runs",
                f"sitting {sitting} has runs of hosts {sorted(of_sitting['host'].unique())}",
                "one host a sitting",
                "A sitting is one stretch of measuring on one machine: name them apart",
            )
        chosen = [frame[frame["sitting"] == sitting] for frame in (intervals, windows, noted)]
        rows.append(
            _described(of_sitting, *chosen)
            | {"sitting": sitting}
            | _times(of_sitting, chosen[0])
            | _ledger(of_sitting, chosen[0])
        )
    everything = _described(runs, intervals, windows, noted) | {"sitting": "all", "n_planned_runs": n_planned_runs}
    rows.append(everything | _all_sittings(rows))
    return CampaignQuality(_with_fractions(pd.DataFrame(rows)))


def _described(
    runs: pd.DataFrame, _intervals: pd.DataFrame, windows: pd.DataFrame, warnings: pd.DataFrame
) -> dict[str, object]:
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
                "gpu_uuid_hash",
                "hardware",
                "energy_method",
                "source_sha256",
                "config_sha256",
            )
        },
        "started_at_utc": runs["started_at_utc"].min(),
        "ended_at_utc": runs["ended_at_utc"].max(),
        "n_runs": len(runs),
        "n_ok_runs": int((runs["status"] == "ok").sum()),
        "n_planned_runs": None,
        "measured_s": float(runs["measured_s"].sum()),
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


def _times(runs: pd.DataFrame, intervals: pd.DataFrame) -> dict[str, float]:
    """Wall seconds of a sitting and what they went into."""
    starts, ends = runs["monotonic_started_s"], runs["monotonic_started_s"] + runs["wall_s"]
    durations = (intervals["closed_s"] - intervals["opened_s"]).groupby(intervals["phase"].map(_PARTS_OF_PHASES)).sum()
    return {"wall_s": float(ends.max() - starts.min())} | {
        f"{part}_s": float(durations.get(part, 0.0)) for part in ("idle", "load", "warmup")
    }


def _with_fractions(rows: pd.DataFrame) -> pd.DataFrame:
    """Seconds of each part over wall seconds; the rest is what remains: tails, edges, gaps."""
    for part in ("measured", "idle", "load", "warmup"):
        rows[f"{part}_fraction"] = rows[f"{part}_s"] / rows["wall_s"]
    rows["rest_fraction"] = 1 - rows[["measured_fraction", "idle_fraction", "load_fraction", "warmup_fraction"]].sum(
        axis=1
    )
    return rows.drop(columns=["idle_s", "load_s", "warmup_s"])


def _ledger(runs: pd.DataFrame, intervals: pd.DataFrame) -> dict[str, object]:
    """Parts and closure of one sitting's ledger, or a note that says why there is none."""
    ordered = runs.sort_values("monotonic_started_s")
    ended_s = ordered["monotonic_started_s"] + ordered["wall_s"]
    sampled_s = ordered["monotonic_started_s"] + ordered["sampled_from_s"]
    gaps_s = (sampled_s.shift(-1) - ended_s).iloc[:-1]
    note = _why_no_ledger(ordered, gaps_s)
    if note is not None:
        return dict.fromkeys(
            [*(f"{part}_energy_j" for part in _PARTS), "counter_energy_j", "ledger_closure_fraction"], np.nan
        ) | {"ledger_note": note}
    part = intervals["phase"].map(_PARTS_OF_PHASES)
    energies = intervals["energy_j"].groupby(part).sum()
    row: dict[str, object] = {f"{name}_energy_j": float(energies.get(name, 0.0)) for name in _PARTS[:-1]}
    idle = intervals[intervals["phase"] == "idle"]
    idle_power_w = float((idle["energy_j"] / (idle["closed_s"] - idle["opened_s"])).median())
    rest_j = float(ordered["rest_energy_j"].sum()) + (float(gaps_s.sum()) * idle_power_w if len(gaps_s) else 0.0)
    counter_j = float(ordered["counter_ended_j"].iloc[-1] - ordered["counter_started_j"].iloc[0])
    closure = (float(energies.sum()) + rest_j - counter_j) / counter_j
    return row | {
        "rest_energy_j": rest_j,
        "counter_energy_j": counter_j,
        "ledger_closure_fraction": closure,
        "ledger_note": None,
    }


def _why_no_ledger(ordered: pd.DataFrame, gaps_s: pd.Series) -> str | None:
    """Why a sitting's ledger cannot be drawn up; None if it can."""
    if (ordered["energy_method"] == "replay").any():
        return "replayed: its runs are no stretch of measuring"
    if (ordered["energy_method"] == "codecarbon_estimate").any():
        return "no counter: its energies are estimates"
    if len(ordered["visible_uuid_hash"].unique()) > 1:
        return "different devices were visible to its runs"
    if ordered[["counter_started_j", "counter_ended_j"]].isna().any(axis=None):
        return "the counter was not read"
    if ordered["rest_energy_j"].isna().any():
        return "no instant power between intervals"
    if (gaps_s < -_OVERLAP_S).any():
        return "its runs overlap in time"
    between_j = (ordered["counter_started_j"].shift(-1) - ordered["counter_ended_j"]).iloc[:-1]
    if (between_j < 0).any() or (ordered["run_energy_j"] <= 0).any():
        return "the counter went backwards or stood still: was the driver reloaded?"
    return None


def _all_sittings(rows: list[dict[str, object]]) -> dict[str, object]:
    """Sums over sittings; no ledger in all unless every sitting has one."""
    frame = pd.DataFrame(rows)
    summed = ["wall_s", "idle_s", "load_s", "warmup_s", "counter_energy_j", *(f"{part}_energy_j" for part in _PARTS)]
    total = frame[summed].astype(float).sum(skipna=False)
    parts_j = sum(float(total[f"{part}_energy_j"]) for part in _PARTS)
    notes = [f"{row['sitting']}: {row['ledger_note']}" for row in rows if row["ledger_note"] is not None]
    return {str(name): value for name, value in total.items()} | {
        "ledger_closure_fraction": parts_j / float(total["counter_energy_j"]) - 1,
        "ledger_note": "; ".join(notes) or None,
    }
