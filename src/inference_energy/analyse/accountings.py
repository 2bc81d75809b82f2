"""Energy per token of every run under three accountings: who is counted, and how often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.grid import N_PUBLISHED_GPUS
from inference_energy.tables import KEY, above_zero, conform
from inference_energy.tables.serving import ACCOUNTINGS

GENERATED, ANSWERED, PUBLISHED = "generated", "answered", "published"

_ENERGY = "energy_j_per_output_token"
_THROUGHPUT = "throughput_tokens_per_s"


@dataclass(frozen=True)
class Accountings:
    """Runs under each accounting.

    Attributes
    ----------
    rows : DataFrame
        One row a run and accounting.
    """

    rows: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``accountings``."""
        return conform(self.rows, ACCOUNTINGS)


def accountings(runs: pd.DataFrame) -> Accountings:
    r"""Count energy and tokens of every run in three ways.

    With *n* GPUs that take part, :math:`E` their energy (each GPU once), :math:`T` the tokens that
    all processes generate, and :math:`r = n` where every process answers all prompts (duplicated
    replicas), else 1:

    ``generated``
        :math:`E / T`: each GPU once, each token once.
    ``answered``
        :math:`E / (T / r)`: of *n* answers to one prompt only one is of use.
    ``published``
        :math:`n (E + (v - n) P_0 t) / (T / r)`: what the published code does. Every process has a
        tracker that reads all *v* visible GPUs, idle ones too (idle power :math:`P_0`, measured
        seconds *t*); the trackers' energies are added up, so that the machine counts *n* times; and
        the tokens are those of one process that answers all prompts.

    The published records bear this out: the GPU power of one tracker rises from 311 W with one process
    to 833 W with four (medians of the 1B model), more than any one card can draw; trackers of one run
    mostly agree within 1 %;
    the total is their sum; and 128 prompts times 128 tokens are counted whatever the number of
    processes. The published total also has an assumed CPU power of 112.5 W and memory for each
    tracker, an estimate that is left out here.

    Throughput is counted tokens over measured seconds.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; runs without energy are left out. A run without idle power, or without a
        GPU, has no row ``published``.

    Raises
    ------
    AnalysisError
        If an energy is not above 0.
    """
    known = runs[runs[_ENERGY].notna()]
    energy, speed = known[_ENERGY].astype(float), known[_THROUGHPUT].astype(float)
    above_zero(known, _ENERGY, "table runs")
    n = known["n_gpus"].astype(float)
    duplicates = pd.Series(np.where(known["parallelism"].eq("replicas_duplicated").fillna(False), n, 1.0), known.index)
    idle = (known["idle_power_w"].astype(float) / n).where(known["n_visible_gpus"].astype(float) > 0)
    alone = known["study"].eq("scenarios_code") & known["traffic"].ne("none")
    n_idle = (N_PUBLISHED_GPUS - n).clip(lower=0).where(~alone.fillna(False).astype(bool), 0.0)
    counted = {
        GENERATED: (energy, speed),
        ANSWERED: (energy * duplicates, speed / duplicates),
        PUBLISHED: (n * (energy + n_idle * idle / speed) * duplicates, speed / duplicates),
    }
    key = known[[column.name for column in KEY]]
    rows = [
        key.assign(accounting=name, energy_j_per_output_token=joules, throughput_tokens_per_s=tokens)
        for name, (joules, tokens) in counted.items()
    ]
    every = pd.concat(rows)
    return Accountings(every[every[_ENERGY].notna()])
