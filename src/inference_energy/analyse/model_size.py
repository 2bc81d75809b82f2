"""How energy per token grows with the model's parameters: which law holds, and how well it foretells a model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from inference_energy.models.curves import aicc, of_study
from inference_energy.models.sizes import (
    AICC,
    EXPONENTIAL,
    EXPONENTIAL_OVER,
    FEWEST_JOULES,
    LAWS,
    LEFT_OUT,
    LINEAR,
    NUMBERS,
    ONE_GPU,
    POWER,
    R2,
)
from inference_energy.resample import Bootstrap
from inference_energy.tables import conform
from inference_energy.tables.sizes import MODEL_SIZE

Floats = NDArray[np.float64]

N_MODELS_MIN = 5  # two parameters and their variance leave AICc something to correct from five points on
_BILLION = 1e9
_ENERGY = "energy_j_per_output_token"
_LENGTHS = ["n_input_tokens", "n_output_tokens"]


@dataclass(frozen=True)
class ModelSize:
    """Laws of energy against size.

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
        """Rows of ``model_size``."""
        return conform(self.estimates, MODEL_SIZE)


def model_size(
    runs: pd.DataFrame,
    architectures: pd.DataFrame,
    *,
    study: str = "model_size",
    confidence: float,
    n_bootstrap: int,
    seed: int,
) -> ModelSize:
    r"""Fit three laws of energy per output token *e* (J) against a model's billions of parameters *N*.

    ``linear`` :math:`e = a + b N`, ``power`` :math:`e = a N^b`, ``exponential`` :math:`e = a\, b^{N / 10}`, each by
    least squares of :math:`\log e` with *a* and *b* above 0, since errors are about proportional to energies that span
    decades. A point is a model: the geometric mean over its repetitions. Once for models on one GPU each, and once for
    each on the number of GPUs on which its token takes least, so that models too large for one GPU count. With answers
    of one length energy per prompt is so many times as much, and all but the first number of a law are the same.

    Each law has its two numbers with Student's interval on n - 2 (linearised; the misfit of the law is its error), and

    ``aicc``
        the variance counted as a parameter; comparable between laws at the same points.
    ``left_out_error_fold``
        How far off a model is foretold from the others: :math:`\exp` of the mean of
        :math:`|\log(\hat e / e)|`, each model left out once. The interval is over models.
    ``exponential_left_out_error_over_this_ratio``
        That of the exponential over this law's, model by model: above 1 the exponential foretells worse.
    ``straight_line_r2``
        Squared correlation of energies and parameters as they are, by ordinary least squares, as others report it. The
        interval is Fisher's. One large model decides it: read it beside the others.

    With five or six models of three families a law is a description of these models and no more.

    Parameters
    ----------
    runs, architectures : DataFrame
        The tables of these names; runs without energy are left out.
    study : str
        The study to take. Lengths at which fewer than five models were measured have no rows.
    confidence, n_bootstrap, seed
        Of intervals over models: Student's up to five (:func:`inference_energy.resample.mean_over_settings`).

    Raises
    ------
    AnalysisError
        If an energy is not above 0.

    References
    ----------
    Burnham and Anderson (2002), *Model Selection and Multimodel Inference*, section 2.4. Fisher (1921), *Metron* 1.
    """
    known = of_study(runs, study, _ENERGY)
    parameters = architectures.set_index("model")["n_parameters"].astype(float)
    bootstrap = Bootstrap(confidence, n_bootstrap, seed)
    rows: list[dict[str, object]] = []
    for lengths, group in known.groupby(_LENGTHS, sort=True):
        points = _points(group)
        for gpus, chosen in {
            ONE_GPU: points[points["n_gpus"] == 1],
            FEWEST_JOULES: points.sort_values("energy").drop_duplicates("model"),
        }.items():
            sizes = chosen["model"].map(parameters) / _BILLION
            chosen = chosen.assign(size=sizes).sort_values("size")
            about = dict(zip(_LENGTHS, lengths, strict=True)) | {"gpus": gpus}
            about |= {"n_models": len(chosen), "n_runs": chosen["n_runs"].sum()}
            rows += [about | row for row in _rows(chosen, bootstrap)]
    return ModelSize(pd.DataFrame(rows, columns=MODEL_SIZE.names), confidence)


def _points(runs: pd.DataFrame) -> pd.DataFrame:
    """Geometric mean energy of each model on each number of GPUs."""
    logs = runs.assign(log_energy=np.log(runs[_ENERGY].astype(float)))
    means = logs.groupby(["model", "n_gpus"])["log_energy"].agg(energy="mean", n_runs="count").reset_index()
    return means.assign(energy=np.exp(means["energy"]))


def _rows(points: pd.DataFrame, bootstrap: Bootstrap) -> Iterator[dict[str, object]]:
    """Rows of all laws through `points`; none with too few of them."""
    if len(points) < N_MODELS_MIN:
        return
    sizes, energies = points["size"].to_numpy(float), points["energy"].to_numpy(float)
    errors = {law: _left_out(law, sizes, energies) for law in LAWS}
    for law, numbers in NUMBERS.items():
        found, covariance, rss = _fitted(law, sizes, energies)
        halves = stats.t.ppf(0.5 + bootstrap.confidence / 2, len(sizes) - 2) * np.sqrt(np.diag(covariance))
        for quantity, value, half in zip(numbers, found, halves, strict=True):
            ends = {"estimate_low": max(value - half, 0.0), "estimate_high": value + half}
            yield {"law": law, "quantity": quantity, "estimate": value, **ends}
        yield {"law": law, "quantity": AICC, "estimate": aicc(rss, len(sizes), 3)}
        yield {"law": law, "quantity": LEFT_OUT, **bootstrap.geometric(points["model"], np.exp(errors[law]))}
        if law != EXPONENTIAL:
            apart = np.exp(errors[EXPONENTIAL] - errors[law])
            yield {"law": law, "quantity": EXPONENTIAL_OVER, **bootstrap.geometric(points["model"], apart)}
    correlation = stats.pearsonr(sizes, energies)
    low, high = correlation.confidence_interval(bootstrap.confidence)
    squares = {"estimate": correlation.statistic**2, "estimate_low": max(low, 0.0) ** 2, "estimate_high": high**2}
    yield {"law": LINEAR, "quantity": R2} | squares


def _start(law: str, sizes: Floats, energies: Floats) -> tuple[float, float]:
    """Numbers to start a fit from: a straight line through energies, or their logarithms, above 0."""
    if law == LINEAR:
        line = stats.linregress(sizes, energies)
        return max(line.intercept, energies.min() / 100), max(line.slope, energies.min() / sizes.max() / 100)
    line = stats.linregress(np.log(sizes) if law == POWER else sizes / 10, np.log(energies))
    return float(np.exp(line.intercept)), max(float(line.slope if law == POWER else np.exp(line.slope)), 1e-3)


def _fitted(law: str, sizes: Floats, energies: Floats) -> tuple[Floats, Floats, float]:
    """Both numbers, their covariance, and the sum of squared log residuals."""
    start = _start(law, sizes, energies)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optimize.OptimizeWarning)  # a perfect fit has no covariance to speak of
        found, covariance = optimize.curve_fit(
            lambda n, *numbers: np.log(LAWS[law](n, *numbers)),
            sizes,
            np.log(energies),
            p0=start,
            bounds=(0, np.inf),
            x_scale=start,
            xtol=1e-12,
        )
    return found, covariance, float((np.log(energies / LAWS[law](sizes, *found)) ** 2).sum())


def _left_out(law: str, sizes: Floats, energies: Floats) -> Floats:
    """How far each energy lies from what the others foretell: the absolute value of the logarithm of their ratio."""
    errors = np.empty(len(sizes))
    for index in range(len(sizes)):
        rest = np.arange(len(sizes)) != index
        found, _, _ = _fitted(law, sizes[rest], energies[rest])
        errors[index] = abs(np.log(LAWS[law](sizes[index : index + 1], *found)[0] / energies[index]))
    return errors
