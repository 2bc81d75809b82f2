"""What did each GPU do in each sitting? Its runs, its time, and the ledger of its energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.errors import AnalysisError
from inference_energy.tables import SITTINGS, conform

_PARTS = ("idle", "load", "warmup", "window", "rest")
_SUMS = (
    "counter_energy_j",
    "ledger_closure_fraction",
    "runs_counter_energy_j",
    "runs_closure_fraction",
    "between_runs_s",
    "between_runs_counter_energy_j",
    "between_runs_idle_energy_j",
)
_OVERLAP_S = 1e-6  # two runs that touch do not overlap


@dataclass(frozen=True)
class Sittings:
    """Time and ledger of every GPU, sitting by sitting.

    Attributes
    ----------
    gpus : DataFrame
        One row a sitting and GPU; a GPU that was metered and never took part has a row too.
    """

    gpus: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``sittings``."""
        return conform(self.gpus, SITTINGS)


def sittings(runs: pd.DataFrame, devices: pd.DataFrame) -> Sittings:
    r"""Follow every GPU through its sittings.

    *Ledger.* Over the runs of a sitting that metered a GPU, in order of time, in J,

    .. math:: \mathrm{idle} + \mathrm{load} + \mathrm{warmup} + \mathrm{windows} + \mathrm{rest}
              \approx \mathrm{counter_{last\ end}} - \mathrm{counter_{first\ start}},

    and ``ledger_closure_fraction`` is (left - right) / right. The rest uses no counter, so closing
    is a test: inside runs it is instant power integrated over what no interval covers; between runs,
    from the last reading of one to the first sample of the next, it is time times idle power, with
    the median over the runs of the GPU's idle power before loading (ASSUME: a GPU is idle between
    two runs that meter it; a process that takes long to go away draws more). A failed run left no
    readings: its time counts as such a gap, as does that of an attempt that was lost. So what the
    counter saw between runs stands beside it, and ``runs_closure_fraction`` is the closure of the
    runs alone. ``ledger_note`` says why a ledger is missing.

    *Side by side.* ``throughput_runs_per_h`` counts the runs of all GPUs of the sitting, and
    ``lanes_mean_ratio`` how many of them went on at the same time.

    Parameters
    ----------
    runs, devices : DataFrame
        The tables of these names.

    Raises
    ------
    AnalysisError
        If there are no runs.
    """
    if runs.empty:
        raise AnalysisError("table runs", "no runs", "at least one", "Measure first: snakemake --cores all")
    rows = []
    for (campaign, sitting), of_sitting in runs.groupby(["campaign", "sitting"], sort=True):
        machine = _machine(of_sitting)
        metered = devices[devices["sitting"] == sitting]
        for gpu, of_gpu in metered.groupby("gpu_uuid_hash", sort=True):
            taking_part = of_sitting["gpu_uuid_hash"].fillna("").map(lambda joined, gpu=gpu: gpu in joined.split("+"))
            own = of_sitting[taking_part.astype(bool)]
            measured_s = float(own["measured_s"].sum())
            rows.append(
                {
                    "campaign": campaign,
                    "sitting": sitting,
                    "host": ", ".join(sorted(of_gpu["host"].unique())),
                    "gpu_uuid_hash": gpu,
                    "n_runs": len(own),
                    "n_ok_runs": int((own["status"] == "ok").sum()),
                    "n_metered_runs": len(of_gpu),
                    "measured_s": measured_s,
                    "measured_fraction": measured_s / machine["wall_s"],
                }
                | machine
                | _ledger(of_gpu[of_gpu["status"] != "failed"])
            )
    return Sittings(pd.DataFrame(rows, columns=SITTINGS.names))


def _machine(runs: pd.DataFrame) -> dict[str, float]:
    """Time and number of runs of a sitting, over all GPUs."""
    timed = runs[runs["status"] != "failed"]  # a failed run has no readings, perhaps not even a clock's
    starts, ends = timed["monotonic_started_s"], timed["monotonic_started_s"] + timed["wall_s"]
    wall_s = float(ends.max() - starts.min()) if len(timed) else np.nan
    gpus = {gpu for joined in timed["gpu_uuid_hash"].dropna() for gpu in joined.split("+") if gpu}
    return {
        "n_gpus": max(1, len(gpus)),
        "n_machine_runs": len(runs),
        "wall_s": wall_s,
        "throughput_runs_per_h": len(timed) / wall_s * 3600,
        "lanes_mean_ratio": float(timed["wall_s"].sum()) / wall_s,
    }


def _ledger(metered: pd.DataFrame) -> dict[str, object]:
    """Parts and closure of one GPU's ledger over a sitting, or a note that says why there is none."""
    ordered = metered.sort_values("monotonic_started_s")
    ended_s = ordered["monotonic_started_s"] + ordered["wall_s"]
    sampled_s = ordered["monotonic_started_s"] + ordered["sampled_from_s"]
    gaps_s = (sampled_s.shift(-1) - ended_s).iloc[:-1]
    note = _why_no_ledger(ordered, gaps_s)
    if note is not None:
        return dict.fromkeys([*(f"{part}_energy_j" for part in _PARTS), *_SUMS], np.nan) | {"ledger_note": note}
    parts = {name: float(ordered[f"{name}_energy_j"].sum()) for name in (*_PARTS, "idle_loaded")}
    parts["idle"] += parts.pop("idle_loaded")
    within_j = sum(parts.values())
    between_j = float(gaps_s.sum() * ordered["idle_power_w"].median()) if len(gaps_s) else 0.0
    parts["rest"] += between_j
    counter_j = float(ordered["counter_ended_j"].iloc[-1] - ordered["counter_started_j"].iloc[0])
    runs_j = float((ordered["counter_ended_j"] - ordered["counter_started_j"]).sum())
    return {f"{name}_energy_j": energy_j for name, energy_j in parts.items()} | {
        "counter_energy_j": counter_j,
        "ledger_closure_fraction": (within_j + between_j - counter_j) / counter_j,
        "runs_counter_energy_j": runs_j,
        "runs_closure_fraction": (within_j - runs_j) / runs_j,
        "between_runs_s": float(gaps_s.sum()),
        "between_runs_counter_energy_j": counter_j - runs_j,
        "between_runs_idle_energy_j": between_j,
        "ledger_note": None,
    }


def _why_no_ledger(ordered: pd.DataFrame, gaps_s: pd.Series) -> str | None:
    """Why a GPU's ledger cannot be drawn up; None if it can."""
    if ordered.empty:
        return "all its runs failed"
    if (ordered["energy_method"] == "replay").any():
        return "replayed: its runs are no stretch of measuring"
    if (ordered["energy_method"] == "codecarbon_estimate").any():
        return "no counter: its energies are estimates"
    if ordered[["counter_started_j", "counter_ended_j"]].isna().any(axis=None):
        return "the counter was not read"
    if ordered["rest_energy_j"].isna().any():
        return "no instant power between intervals"
    if (gaps_s < -_OVERLAP_S).any():
        return "its runs overlap in time"
    between_j = (ordered["counter_started_j"].shift(-1) - ordered["counter_ended_j"]).iloc[:-1]
    if (between_j < 0).any() or (ordered["counter_ended_j"] <= ordered["counter_started_j"]).any():
        return "the counter went backwards or stood still: was the driver reloaded?"
    return None
