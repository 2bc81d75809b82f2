"""How energy per prompt grows with the length of prompts and answers: along a line, or faster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from inference_energy.models.curves import aicc, of_study
from inference_energy.models.laws import HERE, LAWS, LINEAR, POWER, QUADRATIC, Fit, fit
from inference_energy.tables import FACTORS, conform
from inference_energy.tables.lengths import LENGTH_FITS
from inference_energy.units import joules_from_kwh

Floats = NDArray[np.float64]

ENERGY = "energy_j_per_prompt"
STUDIES = {"input": "input_length", "output": "output_length"}
WETZEL = "Wetzel, table 6, PUE of 1.22 included"
N_LENGTHS_MIN = 4  # a square has three parameters; with three lengths it would pass through them
# ASSUME: 128 tokens, the length of most studies of this campaign, are called short.
SHORT_TOKENS = 128
_THOUSAND = 1000.0  # lengths are fitted in thousands, so that coefficients have handy sizes
_N_PUBLISHED_PROMPTS = 10_000


@dataclass(frozen=True)
class LengthFits:
    """Three laws of energy per prompt against length.

    Attributes
    ----------
    fits : DataFrame
        One row a curve.
    confidence : float
        Level of the intervals.
    """

    fits: pd.DataFrame
    confidence: float

    def table(self) -> pd.DataFrame:
        """Rows of ``length_fits``."""
        return conform(self.fits, LENGTH_FITS)


def length_fits(runs: pd.DataFrame, published: pd.DataFrame, *, confidence: float) -> LengthFits:
    r"""Fit three laws to energy per prompt E (J) against the number n of input or output tokens.

    :math:`E = a + b n`; :math:`E = a + b n + c n^2`; :math:`E = k n^p`. Energies span two decades and their errors
    grow with them, so each law is fitted by least squares of log E. **A point is a length**: the geometric mean over
    its runs. Runs of one length miss a law that is not quite true by the same amount, so counting each of them
    would make the intervals of its parameters too narrow.

    **Intervals** are those of the linearised law with Student's t. Four or five lengths leave a square one or two
    degrees of freedom, so the residuals' variance is pooled over the curves that vary the same length, which takes
    laws to miss different models by alike proportions. Even so this is little: it shows a bend of tens of percent,
    no small one.

    **Laws are compared** by AICc of the residuals of all runs, the variance counted as a parameter, as Akaike
    weights; and by the error at each length when all its runs are left out. AICc takes runs for independent,
    which flatters the law with more parameters; of a longest or shortest length left out a law must say
    what lies beyond its data, which is stricter. With one cycle there are too few runs for AICc of the square.

    The same laws are fitted to the published energies of Wetzel's table 6 (vLLM, LLaMA 3 8B).

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; the settings of studies ``input_length`` and ``output_length`` count wherever they were
        measured. Runs without energy are left out.
    published : DataFrame
        ``published/wetzel_output_length.csv``, all columns text.
    confidence : float
        Level of the intervals.

    Raises
    ------
    AnalysisError
        If an energy is not above 0.

    References
    ----------
    Hurvich and Tsai (1989), *Biometrika* 76, 297-307. Bates and Watts (1988), *Nonlinear Regression Analysis and its
    Applications*, chapter 2.
    """
    curves = [*_measured(runs), *_published(published)]
    pooled: dict[tuple[str, str, str], tuple[float, int]] = {}
    for curve in curves:
        for law, found in curve.fits.items():
            squares, freedom = pooled.get((curve.source, curve.varied, law), (0.0, 0))
            pooled[curve.source, curve.varied, law] = (
                squares + float((found.residuals**2).sum()),
                freedom + found.n_freedom,
            )
    errors = {
        key: _Error((squares / freedom) ** 0.5, freedom, confidence) for key, (squares, freedom) in pooled.items()
    }
    rows = [curve.row({law: errors[curve.source, curve.varied, law] for law in curve.fits}) for curve in curves]
    return LengthFits(pd.DataFrame(rows, columns=LENGTH_FITS.names), confidence)


@dataclass(frozen=True)
class _Error:
    """Standard deviation of the log residuals of one law, pooled over curves."""

    residual_fraction: float
    n_freedom: int
    confidence: float

    def half(self, gradient: Floats, found: Fit) -> float:
        """Half of the interval of a quantity with this gradient by the law's parameters."""
        t = float(stats.t.ppf(0.5 + self.confidence / 2, self.n_freedom))
        return t * self.residual_fraction * float(np.sqrt(gradient @ found.covariance @ gradient))

    def ends(self, name: str, value: float, gradient: Floats, found: Fit) -> dict[str, object]:
        """A quantity with its interval."""
        half = self.half(gradient, found)
        return {name: value, f"{name}_low": value - half, f"{name}_high": value + half}


class _Curve:
    """Energy of one model's prompts at several lengths."""

    def __init__(self, source: str, varied: str, keys: dict[str, object], x: Floats, energy: Floats) -> None:
        self.source, self.varied, self.keys = source, varied, keys
        self.x, self.logs = x / _THOUSAND, np.log(energy)  # of every run
        self.lengths, place = np.unique(self.x, return_inverse=True)
        self.means = np.bincount(place, self.logs) / np.bincount(place)
        enough = len(self.lengths) >= N_LENGTHS_MIN
        self.fits = {law: fit(law, self.lengths, self.means) for law in LAWS} if enough else {}

    def row(self, errors: dict[str, _Error]) -> dict[str, object]:
        """The row of ``length_fits``."""
        n = len(self.lengths)
        row: dict[str, object] = {
            "source": self.source,
            "varied": self.varied,
            **self.keys,
            "n_lengths": n,
            "n_runs": len(self.x),
            "shortest_tokens": self.lengths[0] * _THOUSAND,
            "longest_tokens": self.lengths[-1] * _THOUSAND,
        }
        if not self.fits:
            return row | {
                "note": f"laws cannot be fitted, because {n} length{'s are' if n != 1 else ' is'} measured and"
                f" {N_LENGTHS_MIN} are needed"
            }
        return (
            row
            | self._line(errors[LINEAR])
            | self._square(errors[QUADRATIC])
            | self._power(errors[POWER])
            | self._compared()
        )

    def _line(self, error: _Error) -> dict[str, object]:
        found = self.fits[LINEAR]
        a, b = found.coefficients
        slope = error.ends("linear_slope_energy_j_per_prompt", b, np.array([0.0, 1.0]), found)
        return {"linear_fixed_energy_j_per_prompt": a} | slope

    def _square(self, error: _Error) -> dict[str, object]:
        found = self.fits[QUADRATIC]
        a, b, c = found.coefficients
        square = error.ends("quadratic_square_energy_j_per_prompt", c, np.array([0.0, 0.0, 1.0]), found)
        deviation = error.residual_fraction * float(np.sqrt(found.covariance[2, 2]))
        row = square | {
            "quadratic_fixed_energy_j_per_prompt": a,
            "quadratic_slope_energy_j_per_prompt": b,
            "quadratic_p_value": 2 * float(stats.t.sf(abs(c) / deviation, error.n_freedom))
            if deviation > 0
            else np.nan,
            "n_freedom": error.n_freedom,
        }
        for name, at in (
            ("square_part_fraction", self.lengths[-1]),
            ("short_square_part_fraction", SHORT_TOKENS / _THOUSAND),
        ):
            whole = a + b * at + c * at**2
            part = c * at**2 / whole
            gradient = np.array([-part, -part * at, (1 - part) * at**2]) / whole
            row |= error.ends(name, part, gradient, found)
        low, high = (float(str(row[f"quadratic_square_energy_j_per_prompt_{end}"])) for end in ("low", "high"))
        return row | {"bend": "up" if low > 0 else "down" if high < 0 else "undecided"}

    def _power(self, error: _Error) -> dict[str, object]:
        found = self.fits[POWER]
        log_k, p = found.coefficients
        exponent = error.ends("power_elasticity_ratio", p, np.array([0.0, 1.0]), found)
        return {"power_thousand_energy_j_per_prompt": float(np.exp(log_k))} | exponent

    def _compared(self) -> dict[str, object]:
        """Residuals, errors at lengths left out, and AICc of every law."""
        n, row, scores, errors = len(self.x), {}, {}, {}
        for law, found in self.fits.items():
            off = self.logs - np.log(found.energy(self.x))
            scores[law] = aicc(float((off**2).sum()), n, LAWS[law] + 1)
            errors[law] = float(np.sqrt(np.mean([self._left_out(law, place) ** 2 for place in range(len(self.means))])))
            row[f"{law}_residual_fraction"] = float(np.sqrt((found.residuals**2).mean()))
            row[f"{law}_left_out_fraction"] = errors[law]
            row[f"{law}_aicc"] = scores[law] if np.isfinite(scores[law]) else np.nan
        best: dict[str, object] = {"predicts_best": min(errors, key=errors.__getitem__)}
        if not np.isfinite(list(scores.values())).all():
            k = LAWS[QUADRATIC] + 1
            return row | best | {"note": f"AICc cannot compare, because {n} runs are measured and {k + 2} are needed"}
        least = min(scores.values())
        weights = {law: float(np.exp((least - score) / 2)) for law, score in scores.items()}
        row |= {f"{law}_weight_fraction": weight / sum(weights.values()) for law, weight in weights.items()}
        return row | best | {"fits_best": min(scores, key=scores.__getitem__)}

    def _left_out(self, law: str, place: int) -> float:
        """Relative error at a length when the law is fitted to the others."""
        found = fit(law, np.delete(self.lengths, place), np.delete(self.means, place))
        return float(found.energy(self.lengths[place]) / np.exp(self.means[place]) - 1)


def _measured(runs: pd.DataFrame) -> Iterator[_Curve]:
    """Curves of this campaign: runs that differ in one length only."""
    for varied, study in STUDIES.items():
        length, other = (f"n_{name}_tokens" for name in (varied, "output" if varied == "input" else "input"))
        same = [column.name for column in FACTORS if column.name != length]
        for _, curve in of_study(runs, study, ENERGY).groupby(same, sort=True, dropna=False):
            keys = {name: curve[name].iloc[0] for name in ("model", "precision", "batch_size")}
            keys["other_length_tokens"] = float(curve[other].iloc[0])
            yield _Curve(HERE, varied, keys, curve[length].to_numpy(float), curve[ENERGY].to_numpy(float))


def _published(rows: pd.DataFrame) -> Iterator[_Curve]:
    """Wetzel's energies of 10,000 prompts, as joules of one of them."""
    for model, curve in rows.groupby("model", sort=True):
        energy_j = curve["energy_wh_per_10k_prompts"].to_numpy(float) * joules_from_kwh(1e-3) / _N_PUBLISHED_PROMPTS
        keys: dict[str, object] = {"model": model, "other_length_tokens": float(curve["avg_input_tokens"].iloc[0])}
        yield _Curve(WETZEL, "output", keys, curve["avg_output_tokens"].to_numpy(float), energy_j)
