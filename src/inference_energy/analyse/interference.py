"""Do runs on other GPUs of a machine disturb a run? The same settings alone and beside neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.tost import tost
from inference_energy.tables import FACTORS, INTERFERENCE, conform

QUANTITIES = ("energy_j_per_output_token", "throughput_tokens_per_s")

# ASSUME: a setting whose kernels fill 90 % of the windows' time (NVML's utilisation) is bound by the GPU.
GPU_BOUND_FRACTION = 0.9

# ASSUME: a GPU of others that draws more than this is at work; idle ones draw 77-80 W (H200).
BUSY_W = 100.0

TOGETHER = "GPU-bound together"
_SHOWN = ("model", "precision", "batch_size")
_RATIO = "beside_over_alone_ratio"


@dataclass(frozen=True)
class Interference:
    """Ratios of runs beside neighbours over runs alone.

    Attributes
    ----------
    ratios : DataFrame
        One row a setting and quantity, and one a quantity for all GPU-bound settings together.
    """

    ratios: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``interference``."""
        return conform(self.ratios, INTERFERENCE)


def interference(
    runs: pd.DataFrame,
    device_checks: pd.DataFrame,
    *,
    study: str = "interference",
    confidence: float,
    margin_fraction: float,
) -> Interference:
    r"""Compare runs beside neighbours with runs alone, all else equal.

    Runs with ``neighbours`` *allowed* and *none* of one setting are independent samples of
    :math:`\log x`; their difference has Welch's t interval, of level 1 - 2 alpha with
    alpha = 1 - `confidence`, as for the other comparisons. All GPU-bound settings together: the
    least-squares effect of neighbours beside one level for each setting, with the pooled variance.
    The verdict is *equivalent* if the interval lies within 1 ± `margin_fraction`, *different* if it
    lies wholly outside, and else *undecided*, as where a side has a single run.

    ``n_neighbours`` counts, during the runs beside neighbours, visible GPUs that the run does not
    meter and that hold processes of others or draw more than an idle GPU does. A run that was
    allowed neighbours and had none belongs to neither side and is left out.

    Parameters
    ----------
    runs, device_checks : DataFrame
        The tables of these names.
    study : str
        The study; a campaign without it has an empty table.
    confidence, margin_fraction : float
        See above.

    References
    ----------
    Welch (1947), *Biometrika* 34, 28-35; ``scipy.stats.ttest_ind(equal_var=False)``.
    """
    known = runs[(runs["study"] == study) & runs[QUANTITIES[0]].notna()].copy()
    known["n_busy"] = _busy_neighbours(known, device_checks)
    known = known[(known["neighbours"] == "none") | (known["n_busy"] > 0)]
    others = [column.name for column in FACTORS if column.name != "neighbours"]
    pairs = [group for _, group in known.groupby(others, dropna=False, sort=True) if group["neighbours"].nunique() == 2]
    rows: list[dict[str, object]] = []
    for quantity in QUANTITIES:
        level = {"quantity": quantity, "confidence": 2 * confidence - 1, "margin_fraction": margin_fraction}
        for group in pairs:
            beside = group[group["neighbours"] == "allowed"]
            shown = {name: beside[name].iloc[0] for name in ("setting", *_SHOWN)}
            rows.append(
                shown | level | _said(group) | tost(_RATIO, *_welch(group, quantity), confidence, margin_fraction)
            )
        bound = [group for group in pairs if _gpu_bound(group)]
        if bound:
            whole = {"setting": TOGETHER} | dict.fromkeys(_SHOWN)
            fitted = tost(_RATIO, *_pooled(bound, quantity), confidence, margin_fraction)
            rows.append(whole | level | _said(pd.concat(bound)) | fitted)
    return Interference(pd.DataFrame(rows, columns=INTERFERENCE.names))


def _busy_neighbours(runs: pd.DataFrame, checks: pd.DataFrame) -> pd.Series:
    """Busy GPUs of others during each run."""
    key = ["study", "setting", "cycle"]
    during = checks[(checks["moment"] == "during") & ~checks["metered"].fillna(True).astype(bool)]
    busy = (during["n_other_processes"].fillna(0) > 0) | (during["power_w"].fillna(0.0) > BUSY_W)
    counts = during[busy.astype(bool)].groupby(key)["gpu_uuid_hash"].nunique()
    found = [counts.get(tuple(row), 0) for row in runs[key].itertuples(index=False)]
    return pd.Series(found, index=runs.index, dtype=float)


def _said(group: pd.DataFrame) -> dict[str, object]:
    beside = group["neighbours"] == "allowed"
    return {
        "gpu_bound": _gpu_bound(group),
        "n_alone": int((~beside).sum()),
        "n_beside": int(beside.sum()),
        "n_neighbours": float(group.loc[beside, "n_busy"].mean()),
    }


def _gpu_bound(group: pd.DataFrame) -> bool:
    return bool(group["gpu_utilisation_fraction"].mean() >= GPU_BOUND_FRACTION)


def _sides(group: pd.DataFrame, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    logs, beside = np.log(group[quantity].to_numpy(float)), (group["neighbours"] == "allowed").to_numpy(bool)
    return logs[beside], logs[~beside]


def _welch(group: pd.DataFrame, quantity: str) -> tuple[float, float, float]:
    """Mean difference of logarithms, its standard error and Welch's degrees of freedom."""
    beside, alone = _sides(group, quantity)
    mean = float(beside.mean() - alone.mean())
    if len(beside) < 2 or len(alone) < 2:
        return mean, math.nan, 0.0
    shares = [float(side.var(ddof=1)) / len(side) for side in (beside, alone)]
    total = sum(shares)
    spent = sum(share**2 / (len(side) - 1) for share, side in zip(shares, (beside, alone), strict=True))
    return mean, math.sqrt(total), total**2 / spent if spent else float(len(beside) + len(alone) - 2)


def _pooled(groups: list[pd.DataFrame], quantity: str) -> tuple[float, float, float]:
    """The effect of neighbours beside a level for each setting: estimate, standard error, degrees of freedom."""
    sides = [_sides(group, quantity) for group in groups]
    weights = np.array([1 / (1 / len(beside) + 1 / len(alone)) for beside, alone in sides])
    effects = np.array([beside.mean() - alone.mean() for beside, alone in sides])
    mean = float((weights * effects).sum() / weights.sum())
    # residuals about a setting's level and the common effect
    within = sum(float(((side - side.mean()) ** 2).sum()) for pair in sides for side in pair)
    residual = within + float((weights * (effects - mean) ** 2).sum())
    freedom = sum(len(beside) + len(alone) for beside, alone in sides) - len(groups) - 1
    return mean, math.sqrt(residual / freedom / weights.sum()) if freedom > 0 else math.nan, float(freedom)
