"""What fewer GPUs and smaller models save, counting the GPUs that take part, or a whole machine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from inference_energy.models.cells import Cell, Contrast, cells
from inference_energy.models.curves import of_study
from inference_energy.models.sizes import (
    ENERGY_RATIO,
    FEWER_GPUS,
    MACHINE,
    N_MACHINE_GPUS,
    SMALLER_MODEL,
    SPEED_RATIO,
    TAKING_PART,
)
from inference_energy.tables import conform
from inference_energy.tables.sizes import RIGHT_SIZE

_ENERGY, _SPEED = "energy_j_per_output_token", "throughput_tokens_per_s"
_LENGTHS = ["n_input_tokens", "n_output_tokens"]
_CELL = ["model", "n_gpus", *_LENGTHS]


@dataclass(frozen=True)
class RightSize:
    """Ratios between models and numbers of GPUs.

    Attributes
    ----------
    estimates : DataFrame
        One row an estimate.
    confidence : float
        Level of the intervals.
    """

    estimates: pd.DataFrame
    confidence: float

    def table(self) -> pd.DataFrame:
        """Rows of ``right_size``."""
        return conform(self.estimates, RIGHT_SIZE)


def right_size(
    runs: pd.DataFrame, architectures: pd.DataFrame, *, study: str = "model_size", confidence: float
) -> RightSize:
    r"""Compare each model on fewer GPUs with itself on more, and with the next larger one on the same GPUs.

    With *n* GPUs taking part, energy per output token *e* (J) and throughput *v* (tokens/s):

    ``taking_part``
        *e*: the GPUs that take part, as if the machine held no others.
    ``machine_of_four``
        :math:`e + (4 - n) P_0 / v`: a machine of four GPUs whose others idle meanwhile and serve nobody, each at
        the idle power :math:`P_0` of a GPU without a model (W). It is measured before an engine starts; a run in an
        engine that was there already takes the mean of its sitting, or else of the study.

    Ratios are of geometric means over repetitions, sittings' levels taken out where they can be; the spread
    between repetitions is pooled over all settings of the study (:func:`inference_energy.models.cells.cells`).
    One batch size: with another the energy of a small model on many GPUs may compare otherwise.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; runs without energy, such as those out of memory, are left out.
    architectures : DataFrame
        The table of this name, for the order of models by parameters.
    study : str
        The study to take; without it there are no rows.
    confidence : float
        Level of the intervals.

    Raises
    ------
    AnalysisError
        If an energy or a throughput is not above 0.
    """
    known = of_study(runs, study, _ENERGY)
    if known.empty:
        return RightSize(pd.DataFrame(columns=RIGHT_SIZE.names), confidence)
    sizes = architectures.set_index("model")["n_parameters"]
    n_idle = (N_MACHINE_GPUS - known["n_gpus"].astype(float)).clip(lower=0)
    machine = known[_ENERGY] + n_idle * _bare_idle_w(known) / known[_SPEED]
    wanted = (
        (ENERGY_RATIO, TAKING_PART, known, _ENERGY),
        (ENERGY_RATIO, MACHINE, known.assign(**{_ENERGY: machine}), _ENERGY),
        (SPEED_RATIO, TAKING_PART, known, _SPEED),
    )
    rows = []
    for quantity, accounting, frame, column in wanted:
        found = cells(frame, _CELL, column)
        for choice, above, below in _comparisons(list(found.n_runs), sizes):
            names = dict(zip(_CELL, above, strict=True)) | {"over_model": below[0], "n_gpus_over": below[1]}
            about = {"quantity": quantity, "accounting": accounting, "choice": choice}
            contrast: Contrast = ([above], [below])
            rows.append(about | names | found.ratio(contrast, confidence))
    return RightSize(pd.DataFrame(rows, columns=RIGHT_SIZE.names), confidence)


def _comparisons(known: list[Cell], sizes: pd.Series) -> Iterator[tuple[str, Cell, Cell]]:
    """What is compared with what: the same model on fewer GPUs, then the next smaller model on the same."""
    ordered = sorted(known, key=lambda cell: (cell[2:], sizes[cell[0]], cell[1]))
    for above, below in itertools.combinations(ordered, 2):
        if above[0] == below[0] and above[2:] == below[2:]:
            yield FEWER_GPUS, above, below
    for _, group in itertools.groupby(sorted(ordered, key=lambda cell: cell[1:]), key=lambda cell: cell[1:]):
        for smaller, larger in itertools.pairwise(sorted(group, key=lambda cell: float(sizes[cell[0]]))):
            yield SMALLER_MODEL, smaller, larger


def _bare_idle_w(runs: pd.DataFrame) -> pd.Series:
    """Idle power of a GPU without a model."""
    power_w = runs["idle_power_w"].astype(float) / runs["n_gpus"].astype(float)
    bare = power_w.where(runs["process_position"].fillna(0) == 0)
    of_sitting = bare.groupby(runs["sitting"], dropna=False).transform("mean")
    return bare.fillna(of_sitting).fillna(bare.mean())
