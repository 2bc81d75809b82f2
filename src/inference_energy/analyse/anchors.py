"""Do the anchor settings repeat? The same settings in every sitting, on every GPU and host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.tables import ANCHORS, conform

QUANTITIES = ("energy_j_per_output_token", "throughput_tokens_per_s")

# ASSUME: a setting whose kernels fill 90 % of the windows' time (NVML's utilisation) is bound by the GPU; the others
# wait for the CPU, whose speed differs between hosts.
GPU_BOUND_FRACTION = 0.9


@dataclass(frozen=True)
class Anchors:
    """Repetitions of the anchor settings.

    Attributes
    ----------
    repetitions : DataFrame
        One row a run and quantity; what is said of the setting is repeated in its rows.
    """

    repetitions: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``anchors``."""
        return conform(self.repetitions, ANCHORS)


def anchors(runs: pd.DataFrame, *, study: str = "anchors", margin_fraction: float) -> Anchors:
    r"""Compare the repetitions of each anchor setting, on one GPU, between GPUs and between hosts.

    With :math:`l = \log x` of a run: ``same_gpu_cv`` is the pooled standard deviation of *l* on one
    GPU, :math:`\sqrt{\sum (l - \bar l_g)^2 / (n - n_g)}`; ``between_gpus_cv`` and
    ``between_hosts_cv`` are standard deviations of the means :math:`\bar l_g` of GPUs and of hosts.
    A standard deviation of logarithms is about a CV. A setting *repeats* if its largest and smallest
    value on any one GPU are at most `margin_fraction` apart, *differs* if not, and is *undecided*
    where no GPU has two runs. The mean of ``over_mean_ratio`` is the geometric mean of the GPUs'
    geometric means, so that a GPU that was used more does not weigh more.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; runs without numbers are left out.
    study : str
        The study of anchors; a campaign without it has an empty table.
    margin_fraction : float
        What counts as equal.
    """
    known = runs[(runs["study"] == study) & runs[QUANTITIES[0]].notna()]
    rows = [
        row
        for _, of_setting in known.groupby("setting", sort=True)
        for quantity in QUANTITIES
        for row in _repetitions(of_setting.sort_values("started_at_utc"), quantity, margin_fraction)
    ]
    return Anchors(pd.DataFrame(rows, columns=ANCHORS.names))


def _repetitions(runs: pd.DataFrame, quantity: str, margin_fraction: float) -> list[dict[str, object]]:
    """Rows of one setting and quantity, in order of time."""
    values = runs[quantity].astype(float)
    logs, gpus = pd.Series(np.log(values), index=runs.index), runs["gpu_uuid_hash"].fillna("")
    by_gpu = logs.groupby(gpus)
    means = by_gpu.mean()
    freedom = len(logs) - len(means)
    same = float(np.sqrt(((logs - by_gpu.transform("mean")) ** 2).sum() / freedom)) if freedom else np.nan
    largest = float(np.expm1((by_gpu.max() - by_gpu.min()).max())) if freedom else np.nan
    hosts = means.groupby(runs.groupby(gpus)["host"].first()).mean()
    said = {
        "quantity": quantity,
        "same_gpu_cv": same,
        "between_gpus_cv": float(means.std(ddof=1)) if len(means) > 1 else np.nan,
        "between_hosts_cv": float(hosts.std(ddof=1)) if len(hosts) > 1 else np.nan,
        "gpu_bound": _gpu_bound(runs),
        "same_gpu_largest_fraction": largest,
        "margin_fraction": margin_fraction,
        "verdict": "undecided" if not freedom else "repeats" if largest <= margin_fraction else "differs",
    }
    shown = [name for name in ANCHORS.names if name in runs.columns]
    previous = values / values.groupby(gpus).shift(1)
    return [
        {name: run[name] for name in shown}
        | said
        | {
            "value": value,
            "over_mean_ratio": float(np.exp(log - means.mean())),
            "over_previous_ratio": ratio,
        }
        for (_, run), value, log, ratio in zip(runs.iterrows(), values, logs, previous, strict=True)
    ]


def _gpu_bound(runs: pd.DataFrame) -> bool | None:
    """Whether the setting keeps the GPU busy; None where utilisation was not read."""
    busy = runs["gpu_utilisation_fraction"].dropna()
    return bool(busy.mean() >= GPU_BOUND_FRACTION) if len(busy) else None
