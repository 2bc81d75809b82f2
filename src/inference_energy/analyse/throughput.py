"""Energy per token as a function of throughput: its shape, and where the fixed power ceases to matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import curve_fit, nnls

from inference_energy.models.curves import aicc, alike
from inference_energy.resample import by_setting
from inference_energy.tables import above_zero, conform
from inference_energy.tables.speed import THROUGHPUT

Floats = NDArray[np.float64]

_ENERGY, _SPEED = "energy_j_per_output_token", "throughput_tokens_per_s"
_LEAST_BATCH_SIZES = 4  # two parameters, and something left to see how well they fit


@dataclass(frozen=True)
class Throughput:
    """Energy against throughput, by model and precision.

    Attributes
    ----------
    curves : DataFrame
        One row a model and precision.
    confidence : float
        Level of the intervals; 1 - confidence is that of the tests.
    n_bootstrap : int
        Draws behind the tests.
    """

    curves: pd.DataFrame
    confidence: float
    n_bootstrap: int

    def table(self) -> pd.DataFrame:
        """Rows of ``throughput``."""
        return conform(self.curves, THROUGHPUT)


def throughput(utilisation: pd.DataFrame, *, confidence: float, n_bootstrap: int, seed: int) -> Throughput:
    r"""Fit energy per output token E against throughput θ along the batch sizes of one GPU.

    Observations are settings: geometric means of E and θ over their runs. All else is equal: one
    GPU, no simulated waiting, the commonest decoding and lengths. Errors are relative, so all fits
    minimise squared residuals of log E (the free one: of E relative to what was measured).

    * **Hyperbola**, E = P0 / θ + e: a fixed power P0 (W), drawn however little is done, and a
      marginal energy e (J per token). In other words, power rises with throughput along a straight line.
      At the inflection θ* = P0 / e both parts are equal; beyond it the marginal one dominates.
    * **Power law**, E = a θ^ε.
    * **Free convex fit**: the closest values whose slopes never fall.

    AICc = n ln(RSS / n) + 2 k + 2 k (k + 1) / (n - k - 1), with k counting the variance; for the free
    fit k counts its kinks. It is missing where n is not above k + 1.

    **Test of convexity.** The distance of the data to the nearest convex relation is compared with
    that of data drawn around this relation (p for "it is convex"), and the distance to the nearest
    concave one alike ("it is straight or concave"). The noise is what runs of one setting scatter
    around the hyperbola's slope, pooled over the campaign: a slower host moves a point along the
    curve, which is no noise. ``convex`` is said where concave is rejected and convex is not.

    Intervals are those of regression, with Student's t on n - 2 degrees of freedom (that of θ* by the
    delta method on 1 / θ*): with four to seven points they hold their level, while a bootstrap that
    resamples the points covers 62 to 90 % at a nominal 95 %, as simulation shows.

    Parameters
    ----------
    utilisation : DataFrame
        The ``utilisation`` table.
    confidence, n_bootstrap, seed
        Level of the intervals, draws and seed of the tests.

    Raises
    ------
    AnalysisError
        If an energy or a throughput is not above 0.

    References
    ----------
    Burnham and Anderson (2002), *Model Selection and Multimodel Inference*, section 2.4 (AICc).
    Bates and Watts (1988), *Nonlinear Regression Analysis and its Applications*, chapter 2.
    Silvapulle and Sen (2005), *Constrained Statistical Inference*, chapter 3 (distance to a cone).
    """
    shown = alike(utilisation)
    for name in (_ENERGY, _SPEED):
        above_zero(shown, name, "table utilisation")
    curves = [_Curve(runs) for _, runs in shown.groupby(["model", "precision"], sort=True)]
    noise = _noise([curve for curve in curves if curve.enough])
    rows = [curve.row(noise, confidence, n_bootstrap, seed) for curve in curves]
    return Throughput(pd.DataFrame(rows, columns=THROUGHPUT.names), confidence, n_bootstrap)


class _Curve:
    """Runs of one model and precision, as logarithms."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self.model, self.precision = (str(runs[name].iloc[0]) for name in ("model", "precision"))
        self.settings = runs["setting"].to_numpy(dtype=str)
        self.runs = np.log(runs[[_SPEED, _ENERGY]].to_numpy(dtype=float))
        self.means = np.stack([np.nanmean(by_setting(self.settings, column), axis=1) for column in self.runs.T])
        self.counts = np.unique(self.settings, return_counts=True)[1]
        self.n_settings = len(self.counts)
        self.enough = runs["batch_size"].nunique() >= _LEAST_BATCH_SIZES

    def residuals(self) -> tuple[Floats, int]:
        """Of every run around its setting, along the hyperbola's slope; and their degrees of freedom."""
        (power_w, marginal), _ = hyperbola(*np.exp(self.means))
        off = self.runs[:, 1] - np.log(power_w / np.exp(self.runs[:, 0]) + marginal)
        place = np.unique(self.settings, return_inverse=True)[1]
        means = np.bincount(place, off) / self.counts
        return off - means[place], len(off) - self.n_settings

    def row(self, noise: float, confidence: float, n_bootstrap: int, seed: int) -> dict[str, Any]:
        """The row of ``throughput``."""
        speed, energy = np.exp(self.means)
        found: dict[str, Any] = {
            "model": self.model,
            "precision": self.precision,
            "n_settings": self.n_settings,
            "n_runs": len(self.runs),
            "throughput_min_tokens_per_s": float(speed.min()),
            "throughput_max_tokens_per_s": float(speed.max()),
            "verdict": "undecided",
        }
        if not self.enough:
            few = f"fewer than {_LEAST_BATCH_SIZES} batch sizes were measured"
            return found | {"verdict": None, "note": f"cannot be estimated, because {few}"}
        found |= self._fits(confidence)
        if pd.isna(found["fixed_power_w"]):
            return found | {"verdict": None, "note": "cannot be estimated, because no P0 / throughput + e comes near"}
        if np.isnan(noise):
            because = "no setting of this campaign was run twice, so the noise is unknown"
            return found | {"note": f"convexity cannot be tested, because {because}"}
        rng = np.random.default_rng(seed)
        sd = noise / np.sqrt(self.counts)
        convex_p, concave_p = (shape_p_value(speed, energy, sd, sign, n_bootstrap, rng) for sign in (1, -1))
        alpha = 1 - confidence
        verdict = "not convex" if convex_p < alpha else "convex" if concave_p < alpha else "undecided"
        return found | {"convex_p_value": convex_p, "concave_p_value": concave_p, "verdict": verdict}

    def _fits(self, confidence: float) -> dict[str, Any]:
        """The three fits of the settings, with intervals."""
        speed, energy = np.exp(self.means)
        (power_w, marginal), covariance = hyperbola(speed, energy)
        half = float(stats.t.ppf((1 + confidence) / 2, self.n_settings - 2))
        # 1 / θ* = e / P0 is bounded where θ* is not; its variance by the delta method.
        per_inflection, slope = marginal / power_w, np.array([-marginal / power_w**2, 1 / power_w])
        off = half * float(np.sqrt(slope @ covariance @ slope))
        inflection = _inverse(per_inflection)
        above, below = inflection > speed.max(), inflection < speed.min()
        law = stats.linregress(*self.means)
        convex, n_kinks = shape_fit(speed, energy, 1)
        return {
            **_estimate("fixed_power_w", power_w, half * covariance[0, 0] ** 0.5),
            **_estimate("marginal_energy_j_per_output_token", marginal, half * covariance[1, 1] ** 0.5),
            "inflection_throughput_tokens_per_s": inflection,
            "inflection_throughput_tokens_per_s_low": _inverse(per_inflection + off),
            "inflection_throughput_tokens_per_s_high": _inverse(per_inflection - off),
            "inflection_place": "above" if above else "below" if below else "within",
            "power_law_energy_j_per_output_token": float(np.exp(law.intercept)),
            **_estimate("elasticity_ratio", law.slope, half * law.stderr),
            **_goodness("hyperbola", np.log(power_w / speed + marginal) - self.means[1], 2),
            **_goodness("power_law", law.intercept + law.slope * self.means[0] - self.means[1], 2),
            **_goodness("convex", np.log1p(-convex), 2 + n_kinks),
        }


# --- fits ----------------------------------------------------------------------------------------


def hyperbola(speed: Floats, energy: Floats) -> tuple[Floats, Floats]:
    """P0 (W) and e (J per token) of E = P0 / θ + e by least squares of log E, and their covariance.

    Parameters
    ----------
    speed, energy : ndarray, shape (n_points,)
        Throughput (tokens per s) and energy per token (J).

    Returns
    -------
    tuple of ndarray, shapes (2,) and (2, 2)
        The covariance has the residuals' variance with n - 2 degrees of freedom. Both are missing where there is no
        such fit.
    """
    scale = float(np.exp(np.log(speed).mean()))
    design = np.stack([scale / speed, np.ones_like(speed)], axis=1)
    start = np.linalg.lstsq(design / energy[:, None], np.ones_like(energy), rcond=None)[0]  # of relative residuals

    def law(inverse: Floats, power: float, marginal: float) -> Floats:
        return np.log(np.maximum(power * inverse + marginal, 1e-300))

    try:
        found, covariance = curve_fit(law, scale / speed, np.log(energy), p0=start, ftol=1e-13, xtol=1e-13)
    except RuntimeError:  # SciPy's word for no convergence
        return np.full(2, np.nan), np.full((2, 2), np.nan)
    units = np.array([scale, 1.0])
    return found * units, covariance * np.outer(units, units)


def shape_fit(speed: Floats, energy: Floats, sign: int) -> tuple[Floats, int]:
    """Closest values of E at the points whose slopes never fall (`sign` 1) or never rise (-1).

    A line plus hinges at the inner points with weights of one sign, by non-negative least squares.

    Parameters
    ----------
    speed, energy : ndarray, shape (n_points,)

    Returns
    -------
    tuple of ndarray and int
        (measured - fitted) / measured at each point, and the number of kinks.
    """
    line, hinges = _basis(speed, energy)
    residual = np.ones_like(energy) - line @ (line.T @ np.ones_like(energy))
    if not hinges.shape[1]:
        return residual, 0
    weights = nnls(sign * hinges, residual)[0]
    return residual - sign * hinges @ weights, int((weights > 1e-9 * max(weights.max(), 1e-300)).sum())


def shape_p_value(
    speed: Floats, energy: Floats, sd: Floats, sign: int, n_draws: int, rng: np.random.Generator
) -> float:
    """Probability of data at least as far from the shape, if the closest relation of this shape were true.

    Parameters
    ----------
    speed, energy : ndarray, shape (n_points,)
    sd : ndarray, shape (n_points,)
        Standard deviation of the relative error of each point.
    sign : int
        1: convex, -1: concave; see :func:`shape_fit`.
    """
    residual, _ = shape_fit(speed, energy, sign)
    found = float((residual**2).sum())
    truth = energy * (1 - residual)
    drawn = truth * np.exp(sd * rng.standard_normal((n_draws, len(sd))))
    far = sum(float((shape_fit(speed, one, sign)[0] ** 2).sum()) >= found * (1 - 1e-9) - 1e-18 for one in drawn)
    return (1 + far) / (1 + n_draws)


def _basis(speed: Floats, energy: Floats) -> tuple[Floats, Floats]:
    """Orthonormal line and hinges at right angles to it, all relative to the measured energy."""
    x = speed / speed.max()
    line = np.linalg.qr(np.stack([np.ones_like(x), x], axis=1) / energy[:, None])[0]
    knots = np.unique(x)[1:-1]
    hinges = np.maximum(x[:, None] - knots, 0) / energy[:, None]
    hinges -= line @ (line.T @ hinges)
    return line, hinges / np.sqrt((hinges**2).sum(axis=0))


def _noise(curves: list[_Curve]) -> float:
    """Standard deviation of a run around its setting along the curve, pooled; missing without repetitions."""
    found = [one for one in (curve.residuals() for curve in curves) if np.isfinite(one[0]).all()]
    n_free = sum(free for _, free in found)
    return float(np.sqrt(sum(float((off**2).sum()) for off, _ in found) / n_free)) if n_free else float("nan")


def _goodness(fit: str, residuals: Floats, n_parameters: int) -> dict[str, float]:
    """Root mean square of log residuals, and AICc with the variance counted as a parameter."""
    mean_square = float((residuals**2).mean())
    found = aicc(float((residuals**2).sum()), len(residuals), n_parameters + 1)
    return {
        f"{fit}_residual_fraction": float(np.sqrt(mean_square)),
        f"{fit}_aicc": found if np.isfinite(found) else float("nan"),
    }


def _estimate(name: str, value: float, off: float) -> dict[str, float]:
    return {name: float(value), f"{name}_low": float(value - off), f"{name}_high": float(value + off)}


def _inverse(value: float) -> float:
    """1 / value, and infinity for what is not above 0."""
    return float(1 / value) if value > 0 else float("inf")
