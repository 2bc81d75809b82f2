"""Records of any study in one form: runs, what each process's tracker read, what each GPU did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

#: Columns of runs that are text; all others are numbers, missing where a study does not keep them.
TEXT = ("run", "group", "setting", "lane")
NUMBERS = (
    "n_processes",
    "cycle",
    "batch_size",
    "n_prompts",
    "n_input_tokens",
    "n_output_tokens",
    "n_tokens_counted",
    "duration_s",
    "batch_duration_s",
    "wall_s",
    "throughput_tokens_per_s",
    "energy_j",
    "energy_j_per_output_token",
    "work_flop",
    "n_parameters",
    "n_model_parameters",
    "n_layer_parameters",
    "peak_flop_per_s",
    "n_machine_gpus",
    "power_limit_w",
)
PROCESS_NUMBERS = (
    "gpu_energy_j",
    "cpu_energy_j",
    "ram_energy_j",
    "energy_j",
    "gpu_power_w",
    "cpu_power_w",
    "duration_s",
)


@dataclass(frozen=True)
class Stated:
    """What a study's text says of all its runs; missing where it says nothing.

    Attributes
    ----------
    n_input_tokens, n_output_tokens : float
        Of every prompt.
    n_cycles : float
        Passes over all settings.
    cycle_gap_s : float
        Least time from one pass to the next.
    """

    n_input_tokens: float = np.nan
    n_output_tokens: float = np.nan
    n_cycles: float = np.nan
    cycle_gap_s: float = np.nan


@dataclass(frozen=True)
class Records:
    """The records of one study.

    Attributes
    ----------
    name : str
        Whose records.
    runs : DataFrame
        A row a run: ``TEXT``, ``NUMBERS`` and ``ended_at`` (time).
    processes : DataFrame
        A row a process and run: ``row`` (index of its run), ``number`` and ``PROCESS_NUMBERS``.
    gpus : DataFrame
        A row a GPU and run: ``row``, ``number`` and ``utilisation_fraction``.
    stated : Stated
        What the study's text says.
    """

    name: str
    runs: pd.DataFrame
    processes: pd.DataFrame
    gpus: pd.DataFrame
    stated: Stated

    def mean_power_w(self) -> pd.Series:
        """Mean GPU power (W) that each process's tracker read: energy over its time."""
        return self.processes["gpu_energy_j"] / self.processes["duration_s"]

    def over_processes(self, values: pd.Series, how: str) -> pd.Series:
        """`values` of processes as one value a run, by ``sum``, ``mean``, ``min`` or ``max``."""
        grouped = values.dropna().groupby(self.processes["row"])
        return grouped.agg(how).reindex(self.runs.index)

    def comparable(self) -> pd.Series:
        """Whether a run's setting was measured with several numbers of processes."""
        counts = self.runs.groupby("setting")["n_processes"].transform("nunique")
        return counts > 1


def of_columns(name: str, runs: pd.DataFrame, processes: pd.DataFrame, gpus: pd.DataFrame, stated: Stated) -> Records:
    """Records with every column there is, those that a study does not keep as missing values.

    Parameters
    ----------
    runs, processes, gpus : DataFrame
        As of :class:`Records`, any column of numbers may be absent.
    """
    complete = runs.reindex(columns=[*TEXT, *NUMBERS, "ended_at"])
    complete = complete.assign(
        **{key: complete[key].astype("string") for key in TEXT},
        **{key: complete[key].astype("float64") for key in NUMBERS},
        ended_at=pd.to_datetime(complete["ended_at"]),
    )
    trackers = processes.reindex(columns=["row", "number", *PROCESS_NUMBERS])
    trackers = trackers.astype(dict.fromkeys(PROCESS_NUMBERS, "float64"))
    return Records(
        name,
        complete.reset_index(drop=True),
        trackers.reset_index(drop=True),
        gpus.reindex(columns=["row", "number", "utilisation_fraction"]).reset_index(drop=True),
        stated,
    )
