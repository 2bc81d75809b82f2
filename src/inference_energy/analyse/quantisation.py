"""What a number format of fewer bits saves, and how much of it is fewer GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from inference_energy.models.cells import Cells, Contrast, cells
from inference_energy.models.curves import of_study
from inference_energy.models.sizes import (
    BOTH_PARTS,
    ENERGY_RATIO,
    GPUS_PART,
    PRECISION_PART,
    PRECISION_SHARE,
    SPEED_RATIO,
)
from inference_energy.tables import conform
from inference_energy.tables.sizes import QUANTISATION

BASELINE = "bfloat16"
_QUANTITIES = {ENERGY_RATIO: "energy_j_per_output_token", SPEED_RATIO: "throughput_tokens_per_s"}

Format = tuple[str, int]  # precision and GPUs


@dataclass(frozen=True)
class Quantisation:
    """Changes of number format, of GPUs and of both.

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
        """Rows of ``quantisation``."""
        return conform(self.estimates, QUANTISATION)


def quantisation(runs: pd.DataFrame, *, study: str = "quantisation", confidence: float) -> Quantisation:
    r"""Take a change from bfloat16 on more GPUs to fewer bits on fewer GPUs apart.

    With :math:`e(p, n)` the energy per output token in format *p* on *n* GPUs, those that take part:

    .. math:: \frac{e(p, 1)}{e(\text{bf16}, 2)} = \frac{e(\text{bf16}, 1)}{e(\text{bf16}, 2)}
              \cdot \frac{e(p, 1)}{e(\text{bf16}, 1)}

    The first factor is the part ``gpus`` (same format), the second the part ``precision`` (same GPUs), the left
    side ``both``. On the logarithmic scale the parts add up; ``precision_share_of_log_saving_fraction`` is
    :math:`\log` of the second over :math:`\log` of the left side, its interval by the delta method. It may lie
    outside 0 to 1 where one part costs and the other saves. The order matters if formats gain differently from fewer
    GPUs; the part of precision on the larger number of GPUs is given beside it where it was measured.

    Levels are those of :func:`inference_energy.models.cells.cells`: sittings' own levels are taken out where that
    can be done, and intervals are Student's with the spread between repetitions pooled over all settings.
    Rows over all batch sizes are geometric means over those that have both ends; batch sizes are not resampled: the
    measured ones are the whole set.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; runs without energy are left out.
    study : str
        The study to take, with runs of others that differ from its own in format and GPUs alone
        (:func:`inference_energy.models.curves.of_study`); without it there are no rows.
    confidence : float
        Level of the intervals.

    Raises
    ------
    AnalysisError
        If an energy or a throughput is not above 0.
    """
    known = of_study(runs, study, _QUANTITIES[ENERGY_RATIO])
    rows: list[dict[str, object]] = []
    for model, of_model in known.groupby("model", sort=True):
        for quantity, column in _QUANTITIES.items():
            found = cells(of_model, ["precision", "n_gpus", "batch_size"], column)
            rows += [{"model": model} | row for row in _changes(found, quantity, confidence)]
    return Quantisation(pd.DataFrame(rows, columns=QUANTISATION.names), confidence)


def _changes(found: Cells, quantity: str, confidence: float) -> Iterator[dict[str, object]]:
    """Every change at each batch size and over all of them, then the share of precision in those of both."""
    formats = sorted({(str(name[0]), int(name[1])) for name in found.n_runs})
    for before in formats:
        for after in formats:
            part = _part(before, after)
            if part is None:
                continue
            about = {"part": part, "precision_from": before[0], "n_gpus_from": before[1]}
            about |= {"precision_to": after[0], "n_gpus_to": after[1]}
            for batch, batches in _batches(found, before, after):
                row = about | {"batch_size": batch}
                yield row | {"quantity": quantity} | found.ratio(_from_to(before, after, batches), confidence)
            if part != BOTH_PARTS or quantity != ENERGY_RATIO:
                continue
            between = (before[0], after[1])
            for batch, batches in _batches(found, before, between, after):
                share = found.share(_from_to(between, after, batches), _from_to(before, after, batches), confidence)
                yield about | {"batch_size": batch, "quantity": PRECISION_SHARE} | share


def _part(before: Format, after: Format) -> str | None:
    """What changes: the format from the baseline to another, the GPUs to fewer, or both; None for other changes."""
    fewer, other = after[1] < before[1], after[0] != before[0]
    if after[1] > before[1] or (other and before[0] != BASELINE) or not (fewer or other):
        return None
    return BOTH_PARTS if fewer and other else GPUS_PART if fewer else PRECISION_PART


def _batches(found: Cells, *formats: Format) -> Iterator[tuple[int | None, list[int]]]:
    """Batch sizes that all `formats` have, one by one and then together."""
    common = sorted(
        set.intersection(*({int(name[2]) for name in found.n_runs if name[:2] == each} for each in formats))
    )
    for batch in common:
        yield batch, [batch]
    if len(common) > 1:
        yield None, common


def _from_to(before: Format, after: Format, batches: list[int]) -> Contrast:
    return [(*after, batch) for batch in batches], [(*before, batch) for batch in batches]
