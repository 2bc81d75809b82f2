"""The checks that published records are held against, made of this campaign's own records."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from inference_energy.audit.judge import judged
from inference_energy.audit.records import Records, Stated, of_columns
from inference_energy.errors import AnalysisError
from inference_energy.tables import KEY, conform
from inference_energy.tables.audits import AUDIT_OWN

_KEYS = [column.name for column in KEY]

#: Cycles that every setting is to have (docs/methodology.md); a campaign in progress has fewer.
N_CYCLES = 2

#: Checks that cannot be made of our records, and why.
REASONS = {
    "trackers_agree": "each GPU has a meter of its own, so readings need not agree",
    "power_gpus_of_processes": "one meter reads each GPU that works and no other: power_own_gpu is the stricter check",
    "energy_parts": "energy is recorded for each device, in no further parts",
    "cpu_power_varies": "no CPU power is added to the energy of devices",
    "each_answers_all_prompts": "how prompts are shared is a level of each setting, and iterations are counted",
    "prompts_are_shared": "how prompts are shared is a level of each setting, and iterations are counted",
    "tracked_time": "one clock closes windows and readings: the tails between them are recorded (tail_s)",
    "other_gpus_rest": "neighbours on GPUs that take no part are allowed and recorded (device_checks)",
    "parameters": "the number of parameters is no part of a record: a test counts those of every configured model",
    "flop_of_all_tokens": "FLOP are counted from the architecture by an analysis, not recorded",
    "work_per_joule": "FLOP are counted from the architecture by an analysis: table energy_floor, page 17_serving",
    "input_length": "lengths are levels of each setting; no other statement is made",
    "output_length": "lengths are levels of each setting; no other statement is made",
    "cycles_apart": "no time between cycles is stated",
}


@dataclass(frozen=True)
class AuditOwn:
    """What each check finds in a campaign's records."""

    checks: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``audit_own``."""
        return conform(self.checks, AUDIT_OWN)


def audit_own(runs: pd.DataFrame, devices: pd.DataFrame, windows: pd.DataFrame) -> AuditOwn:
    """Apply the checks of :mod:`inference_energy.audit.checks` to runs with numbers.

    A device that takes part stands where published records have a process's tracker. Its energy is that
    of the windows, less its share of what was drawn in tails, while the devices waited for their
    counters to tick. ``energy_summed`` thus holds the run's energy against its devices', and
    ``power_times_time`` the counter against mean power times the windows' time.

    Parameters
    ----------
    runs, devices, windows : DataFrame
        The tables of these names.

    Raises
    ------
    AnalysisError
        If no run has an energy.
    """
    ok = runs[runs["energy_j"].notna()].reset_index(drop=True)
    if ok.empty:
        raise AnalysisError("table runs", "no run has an energy", "a measured run", "Measure the campaign first")
    reasons = dict(REASONS)
    if not devices["participates"].astype("boolean").fillna(False).any():
        reasons["energy_summed"] = "no device has a counter of its own"
    return AuditOwn(judged(_records(ok, devices, windows), reasons))


def _records(ok: pd.DataFrame, devices: pd.DataFrame, windows: pd.DataFrame) -> Records:
    n_processes = ok["n_processes"].astype(float)
    # Where requests arrive, an iteration is the whole pass. Processes of tensor parallelism answer together, so each
    # has a share of every prompt.
    arrives = ok["arrival"].fillna("none") != "none"
    answered = (ok["n_iterations"] * ok["batch_size"].where(~arrives, ok["n_prompts"])).astype(float)
    made = pd.DataFrame(
        {
            "run": ok["study"] + "/" + ok["setting"] + " cycle " + ok["cycle"].astype(str),
            "group": ok["model"],
            "setting": ok["setting"],
            "lane": ok["gpu_uuid_hash"],
            "n_processes": n_processes,
            "cycle": ok["cycle"],
            "batch_size": ok["batch_size"],
            "n_prompts": answered.where(ok["parallelism"] != "tensor", answered / n_processes),
            "n_input_tokens": ok["n_input_tokens"],
            "n_output_tokens": ok["n_output_tokens"],
            "n_tokens_counted": ok["n_output_tokens_measured"],
            "duration_s": ok["measured_s"],
            "wall_s": ok["wall_s"],
            "throughput_tokens_per_s": ok["throughput_tokens_per_s"],
            "energy_j": ok["energy_j"],
            "energy_j_per_output_token": ok["energy_j_per_output_token"],
            "n_machine_gpus": ok["n_visible_gpus"],
            "power_limit_w": ok["power_limit_w"],
            "ended_at": pd.to_datetime(ok["ended_at_utc"], format="ISO8601", utc=True),
        }
    )
    campaign = str(ok["campaign"].iloc[0])
    gpus = pd.DataFrame(columns=["row", "number", "utilisation_fraction"])
    return of_columns(campaign, made, _readings(ok, devices, windows), gpus, Stated(n_cycles=N_CYCLES))


def _readings(ok: pd.DataFrame, devices: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    """What was read of each device that takes part: a row a device and run."""
    tails = windows.groupby(_KEYS, as_index=False)[["tail_energy_j"]].sum()
    known = ok[[*_KEYS, "measured_s"]].assign(row=range(len(ok))).merge(tails, on=_KEYS, how="left")
    part = devices[devices["participates"].astype("boolean").fillna(False)].merge(known, on=_KEYS)
    by_run = part.groupby("row")["window_energy_j"]
    tail = part["tail_energy_j"].fillna(0.0) * part["window_energy_j"] / by_run.transform("sum")
    energy = part["window_energy_j"] - tail
    return pd.DataFrame(
        {
            "row": part["row"],
            "number": part.groupby("row").cumcount(),
            "gpu_energy_j": energy,
            "energy_j": energy,
            "gpu_power_w": part["window_power_w"],
            "duration_s": part["measured_s"],
        }
    )
