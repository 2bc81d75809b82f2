"""Where does a larger batch stop paying? A broken line, and a plateau with a shared cost, against one line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from inference_energy.models.curves import aicc, from_logs, shared_cost
from inference_energy.tables import above_zero, conform
from inference_energy.tables.levers import BATCH_KNEE

Floats = NDArray[np.float64]

ENERGY = "energy_j_per_output_token"
N_BATCH_SIZES_MIN = 5  # a broken line has four parameters; with fewer points it would pass through them
_STEP_DOUBLINGS = 0.05  # of the grid of knees
_LAWS = {"line": "one line", "broken": "broken line", "shared": "shared cost"}


@dataclass(frozen=True)
class BatchKnee:
    """Three laws of energy against batch size.

    Attributes
    ----------
    fits : DataFrame
        One row a model and precision.
    confidence : float
        Level of the intervals.
    """

    fits: pd.DataFrame
    confidence: float

    def table(self) -> pd.DataFrame:
        """Rows of ``batch_knee``."""
        return conform(self.fits, BATCH_KNEE)


def batch_knee(
    runs: pd.DataFrame, *, study: str = "batching", confidence: float, n_bootstrap: int, seed: int
) -> BatchKnee:
    r"""Fit three laws to log energy per output token *y* against :math:`x = \log_2` batch size.

    One line, :math:`y = \alpha + \beta x`; a broken line,
    :math:`y = \alpha + \beta x + \gamma \max(x - \psi, 0)`; and a cost that a batch shares beside one
    that each prompt has, :math:`E = a + b / \text{batch}`. Each is fitted by least squares of the
    logarithm to all runs, so that every run weighs the same in proportion.

    The knee :math:`\psi` is the best of a grid, with at least two batch sizes on either side; its
    interval is that of the profile likelihood,
    :math:`\mathrm{RSS}(\psi) \le \mathrm{RSS}_\min (1 + F_{1, n - 4} / (n - 4))`, and ends at the range
    measured at the latest. It is reported where the broken line is better than one line: the p-value
    of the F statistic is simulated under one line with normal residuals, because the knee does not
    exist under one line and F has not its usual distribution. Other intervals are
    :math:`t_{n - p}` times the standard error of the linearised law. The three laws are compared by
    AICc, the residuals' variance counted as a parameter, as Akaike weights.

    Runs of one batch size lie mostly in different sittings and count as independent; where the host's
    CPU is the limit a part of their scatter is the hosts'.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table. The settings of `study` count wherever they were measured; runs without
        energy are left out.
    study : str
        The study that varies the batch size; a campaign without it has an empty table.
    confidence : float
        Level of the intervals, and one less that of the test for a knee.
    n_bootstrap, seed
        Simulations of the F statistic.

    Raises
    ------
    AnalysisError
        If an energy is not above 0.

    References
    ----------
    Hinkley (1971), *J. American Statistical Association* 66, 736–743; Muggeo (2003), *Statistics in
    Medicine* 22, 3055–3071; Hurvich and Tsai (1989), *Biometrika* 76, 297–307.
    """
    settings = runs.loc[runs["study"] == study, "setting"].unique()
    known = runs[runs["setting"].isin(settings) & runs[ENERGY].notna()]
    above_zero(known, ENERGY, "table runs")
    rows = []
    for (model, precision), curve in known.groupby(["model", "precision"], sort=True):
        batch, energy = curve["batch_size"].to_numpy(dtype=float), curve[ENERGY].to_numpy(dtype=float)
        row: dict[str, object] = dict.fromkeys(BATCH_KNEE.names)
        row |= {"model": model, "precision": precision, "n_batch_sizes": len(np.unique(batch)), "n_runs": len(batch)}
        rng = np.random.default_rng(seed)  # anew: a curve's test does not depend on other curves
        rows.append(row | _fitted(batch, energy, confidence, n_bootstrap, rng))
    return BatchKnee(pd.DataFrame(rows, columns=BATCH_KNEE.names), confidence)


def _fitted(
    batch: Floats, energy: Floats, confidence: float, n_bootstrap: int, rng: np.random.Generator
) -> dict[str, object]:
    """All three laws of one curve; with too few batch sizes, why there are none."""
    n, n_batch_sizes = len(batch), len(np.unique(batch))
    if n_batch_sizes < N_BATCH_SIZES_MIN:
        return {
            "note": f"knee and plateau cannot be estimated, because {n_batch_sizes} batch sizes are measured and"
            f" {N_BATCH_SIZES_MIN} are needed"
        }
    x, y = np.log2(batch), np.log(energy)
    row, rss = _line(x, y, confidence), {}
    design = np.column_stack([np.ones(n), x])
    rss["line"] = float(_rss(y[None], design)[0])
    shared, rss["shared"] = shared_cost(batch, y, confidence)
    row |= shared
    if n < 6:
        row["note"] = f"the knee cannot be estimated, because {n} runs leave too few degrees of freedom"
    else:
        broken, rss["broken"] = _broken(x, y, confidence)
        p_value = _p_value(x, rss["line"], rss["broken"], n_bootstrap, rng)
        row["broken_p_value"] = p_value
        if p_value < 1 - confidence:
            row |= broken
        else:
            row["note"] = f"the knee cannot be estimated, because one line fits as well (p = {p_value:.2g})"
    n_parameters = {"line": 2, "shared": 2, "broken": 4}
    scores = {law: aicc(max(value, 1e-300), n, n_parameters[law] + 1) for law, value in rss.items()}
    least = min(scores.values())
    weights = {law: float(np.exp((least - value) / 2)) for law, value in scores.items()}
    for law, value in rss.items():
        row[f"{law}_cv"] = float(np.sqrt(value / (n - n_parameters[law])))
        row[f"{law}_weight_fraction"] = weights[law] / sum(weights.values())
    return row | {"fits_best": _LAWS[max(weights, key=weights.__getitem__)]}


def _line(x: Floats, y: Floats, confidence: float) -> dict[str, object]:
    fit = stats.linregress(x, y)
    half = float(stats.t.ppf(0.5 + confidence / 2, len(x) - 2)) * fit.stderr
    return from_logs("line_per_doubling_ratio", fit.slope, half)


def _broken(x: Floats, y: Floats, confidence: float) -> tuple[dict[str, object], float]:
    """Knee, both slopes and the sum of squares of the broken line."""
    grid, profile = _profile(x, y[None])
    n, best = len(x), int(profile[0].argmin())
    knee, rss = float(grid[best]), float(profile[0, best])
    within = grid[profile[0] <= rss * (1 + stats.f.ppf(confidence, 1, n - 4) / (n - 4)) + 1e-12]
    design = _design(x, knee)
    (_, slope, bend), *_ = np.linalg.lstsq(design, y, rcond=None)
    jacobian = np.column_stack([design, -bend * (x > knee)])
    covariance = np.linalg.pinv(jacobian.T @ jacobian) * rss / (n - 4)
    t = float(stats.t.ppf(0.5 + confidence / 2, n - 4))
    above = np.array([0.0, 1.0, 1.0, 0.0])
    row: dict[str, object] = {
        "n_prompts_at_knee": 2.0**knee,
        "n_prompts_at_knee_low": 2.0 ** float(within.min()),
        "n_prompts_at_knee_high": 2.0 ** float(within.max()),
    }
    row |= from_logs("below_knee_per_doubling_ratio", slope, t * float(np.sqrt(covariance[1, 1])))
    row |= from_logs("above_knee_per_doubling_ratio", slope + bend, t * float(np.sqrt(above @ covariance @ above)))
    return row, rss


def _p_value(x: Floats, line: float, broken: float, n_bootstrap: int, rng: np.random.Generator) -> float:
    """Share of simulations under one line in which a broken line gains at least as much."""
    if broken <= 1e-20 * max(line, 1e-300) or line <= 1e-20:
        return 1.0 if line <= 1e-20 else 1 / (n_bootstrap + 1)
    simulated = rng.standard_normal((n_bootstrap, len(x)))  # F is free of line and scale
    gains = _rss(simulated, np.column_stack([np.ones(len(x)), x])) / _profile(x, simulated)[1].min(axis=1)
    return float((1 + (gains >= line / broken).sum()) / (n_bootstrap + 1))


def _profile(x: Floats, ys: Floats) -> tuple[Floats, Floats]:
    """Knees of the grid, and the sums of squares of each row of `ys` at each of them."""
    sizes = np.unique(x)
    grid = np.unique(np.append(np.arange(sizes[1], sizes[-2], _STEP_DOUBLINGS), sizes[1:-1]))
    return grid, np.column_stack([_rss(ys, _design(x, knee)) for knee in grid])


def _design(x: Floats, knee: float) -> Floats:
    return np.column_stack([np.ones_like(x), x, np.maximum(x - knee, 0)])


def _rss(ys: Floats, design: Floats) -> Floats:
    """Sum of squared residuals of each row of `ys`."""
    basis, _ = np.linalg.qr(design)
    residuals: Floats = ys - (ys @ basis) @ basis.T
    found: Floats = (residuals**2).sum(axis=1)
    return found
