"""Energy as a sum of parts, each a known scale times the exponential of a linear predictor, fitted to its logarithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from inference_energy.errors import AnalysisError

Floats = NDArray[np.float64]

#: A part: the column of its scale (or ``one``) and its features: factors, numeric columns, or products ``a:b``.
Part = tuple[str, tuple[str, ...]]

_RANK = 1e-7
_STEPS_MAX, _ENOUGH = 200, 1e-10


@dataclass(frozen=True)
class Encoder:
    """Turns settings into columns: the levels that each factor of a fit has."""

    parts: tuple[Part, ...]
    levels: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, settings: pd.DataFrame, parts: Sequence[Part]) -> Encoder:
        """Levels as they are in `settings`."""
        names = {name for _, features in parts for feature in features for name in feature.split(":")}
        factors = sorted(name for name in names if not pd.api.types.is_numeric_dtype(settings[name]))
        return cls(tuple(parts), {name: tuple(sorted(settings[name].unique())) for name in factors})

    def missing(self, settings: pd.DataFrame) -> list[str]:
        """For each setting its levels that the fit has not, joined; empty where it has all."""
        found = [""] * len(settings)
        for name, levels in self.levels.items():
            for place, level in enumerate(settings[name]):
                if level not in levels:
                    found[place] += f"{', ' if found[place] else ''}{level}"
        return found

    def columns(self, settings: pd.DataFrame) -> tuple[list[Floats], list[Floats]]:
        """Scale and columns of each part; levels that the fit has not count as the first one."""
        scales, designs = [], []
        for scale, features in self.parts:
            blocks: list[Floats] = [np.ones((len(settings), 1))]
            for feature in features:
                block: Floats = np.ones((len(settings), 1))
                for name in feature.split(":"):
                    block = (block[:, :, None] * self._block(settings, name)[:, None, :]).reshape(len(settings), -1)
                blocks.append(block)
            scales.append(np.ones(len(settings)) if scale == "one" else settings[scale].to_numpy(float))
            designs.append(np.hstack(blocks))
        return scales, designs

    def _block(self, settings: pd.DataFrame, name: str) -> Floats:
        if name not in self.levels:
            return settings[[name]].to_numpy(float)
        values = settings[name].to_numpy(object)
        block = np.array([[value == level for level in self.levels[name][1:]] for value in values], dtype=float)
        return np.asarray(block.reshape(len(settings), -1), dtype=float)


@dataclass(frozen=True)
class Additive:
    """A fitted sum.

    Attributes
    ----------
    encoder : Encoder
    coefficients : ndarray, shape (n_columns,)
    slopes : ndarray, shape (n_settings, n_columns)
        Derivatives of the logarithm by the coefficients, at the fit.
    residuals : ndarray, shape (n_settings,)
        Of the logarithm.
    n_parameters : int
        Coefficients that the settings decide.
    """

    encoder: Encoder
    coefficients: Floats
    slopes: Floats
    residuals: Floats
    n_parameters: int

    @property
    def freedom(self) -> int:
        """Settings less coefficients."""
        return len(self.residuals) - self.n_parameters

    @property
    def variance(self) -> float:
        """Of the residual logarithm."""
        return float((self.residuals**2).sum()) / self.freedom

    @property
    def covariance(self) -> Floats:
        """Of the coefficients, by linearisation at the fit."""
        inverse = np.linalg.pinv(self.slopes.T @ self.slopes, rcond=_RANK**2)
        return np.asarray(self.variance * inverse, dtype=np.float64)

    @property
    def leverages(self) -> Floats:
        """How far each setting decides its own prediction, from 0 to 1."""
        left, sizes, _ = np.linalg.svd(self.slopes, full_matrices=False)
        leverages: Floats = (left[:, sizes > _RANK * sizes[0]] ** 2).sum(axis=1)
        return leverages

    def predict(self, settings: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
        """Logarithm (n,), its derivatives (n x columns), and the parts' shares (n x parts)."""
        return _evaluate(*self.encoder.columns(settings), self.coefficients)

    def decided(self, slopes: Floats) -> NDArray[np.bool_]:
        """Whether the fitted settings decide each prediction, given its derivatives."""
        rest = slopes - slopes @ np.linalg.pinv(self.slopes, rcond=_RANK) @ self.slopes
        decided: NDArray[np.bool_] = np.abs(rest).max(axis=1) < 1e-5
        return decided

    def errors(self, slopes: Floats) -> Floats:
        """Standard error of a new observation's logarithm: coefficients and residual."""
        spread: Floats = np.sqrt(self.variance + np.einsum("ij,jk,ik->i", slopes, self.covariance, slopes))
        return spread

    def quantile(self, confidence: float) -> float:
        """Student's t for a two-sided interval."""
        return float(stats.t.ppf((1 + confidence) / 2, self.freedom))

    def left_out(self) -> tuple[Floats, Floats]:
        r"""Error of each setting's prediction without it, and that error's standard deviation.

        With leverage :math:`h` and residual :math:`e` they are :math:`e/(1-h)` and
        :math:`s_{(i)}/\sqrt{1-h}`; exact for a linear model, by linearisation else. Missing where
        nothing else decides the prediction.
        """
        rest = 1 - self.leverages
        rest = np.where(rest > 1e-6, rest, np.nan)
        others = (self.residuals @ self.residuals - self.residuals**2 / rest) / (self.freedom - 1)
        return self.residuals / rest, np.sqrt(np.maximum(others, 0) / rest)

    def draws(self, slopes: Floats, n: int, rng: np.random.Generator) -> Floats:
        """Deviations of new logarithms from their predictions (n x settings): coefficients are shared."""
        scale = np.sqrt(self.freedom / rng.chisquare(self.freedom, n))[:, None]
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        shared = rng.standard_normal((n, len(values))) @ (slopes @ root).T
        drawn: Floats = scale * (shared + np.sqrt(self.variance) * rng.standard_normal((n, len(slopes))))
        return drawn


def fit(settings: pd.DataFrame, parts: Sequence[Part]) -> Additive:
    """Least squares of the logarithm, by Levenberg and Marquardt's damped steps.

    Parameters
    ----------
    settings : DataFrame
        One row a setting, with ``log_energy`` and what `parts` name.
    parts : sequence of Part
        The sum.
    """
    encoder = Encoder.of(settings, parts)
    scales, designs = encoder.columns(settings)
    observed = settings["log_energy"].to_numpy(float)
    # Every part begins at an equal share, its scale taken off where it has one.
    begins = [observed - np.log(len(designs)) - np.log(np.where(scale > 0, scale, 1)) for scale in scales]
    coefficients = np.concatenate(
        [
            np.linalg.lstsq(design[scale > 0], begin[scale > 0], rcond=None)[0]
            if (scale > 0).any()
            else np.zeros(design.shape[1])
            for scale, design, begin in zip(scales, designs, begins, strict=True)
        ]
    )
    predicted, slopes, _ = _evaluate(scales, designs, coefficients)
    damping = 1e-2
    for _ in range(_STEPS_MAX):
        residuals = observed - predicted
        padded = np.vstack([slopes, np.sqrt(damping) * np.eye(len(coefficients))])
        step = np.linalg.lstsq(padded, np.concatenate([residuals, np.zeros(len(coefficients))]), rcond=None)[0]
        tried, tried_slopes, _ = _evaluate(scales, designs, coefficients + step)
        gain = residuals @ residuals - ((observed - tried) ** 2).sum()
        if gain > 0:
            coefficients, predicted, slopes, damping = coefficients + step, tried, tried_slopes, damping / 5
        else:
            damping *= 10
        if damping > 1e8 or 0 < gain < _ENOUGH * (residuals @ residuals):
            break
    else:
        raise AnalysisError(
            "sums of exponentials",
            f"{_STEPS_MAX} steps over {len(observed)} settings did not end",
            "a fit that comes to rest",
            "Look for a setting whose energy is far from its neighbours'",
        )
    rank = int(np.linalg.matrix_rank(slopes, tol=_RANK * np.linalg.norm(slopes, 2)))
    return Additive(encoder, coefficients, slopes, observed - predicted, rank)


def _evaluate(scales: list[Floats], designs: list[Floats], coefficients: Floats) -> tuple[Floats, Floats, Floats]:
    ends = np.cumsum([design.shape[1] for design in designs])
    own = np.split(coefficients, ends[:-1])
    parts = np.stack(
        [
            scale * np.exp(np.clip(design @ part, -60, 60))
            for scale, design, part in zip(scales, designs, own, strict=True)
        ],
        axis=1,
    )
    total = parts.sum(axis=1)
    shares = parts / total[:, None]
    slopes = np.hstack([shares[:, [place]] * design for place, design in enumerate(designs)])
    return np.log(total), slopes, shares
