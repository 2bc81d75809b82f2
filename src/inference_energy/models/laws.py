"""Laws of energy against a length, fitted to logarithms: a line, a line with a square, a power."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

Floats = NDArray[np.float64]

#: What table `length_fits` calls curves that are not published ones.
HERE = "measured here"

LINEAR, QUADRATIC, POWER = "linear", "quadratic", "power"
#: Each law with its number of parameters.
LAWS = {LINEAR: 2, QUADRATIC: 3, POWER: 2}
_LEAST = 1e-300  # of an energy, so that a trial step below 0 has a logarithm


@dataclass(frozen=True)
class Fit:
    """A law fitted by least squares of log energy.

    Attributes
    ----------
    law : str
        One of :data:`LAWS`.
    coefficients : ndarray, shape (n_parameters,)
        Of polynomials a, b and c; of the power law log k and p.
    covariance : ndarray, shape (n_parameters, n_parameters)
        Theirs for residuals of variance 1, of the linearised law.
    residuals : ndarray, shape (n_points,)
        Log energy less the law's.
    """

    law: str
    coefficients: Floats
    covariance: Floats
    residuals: Floats

    @property
    def n_freedom(self) -> int:
        """Points less parameters."""
        return len(self.residuals) - len(self.coefficients)

    def energy(self, x: Floats) -> Floats:
        """The law at `x`."""
        if self.law == POWER:
            found: Floats = np.exp(self.coefficients[0] + self.coefficients[1] * np.log(x))
        else:
            found = np.asarray(np.polynomial.polynomial.polyval(x, self.coefficients), dtype=float)
        return found


def fit(law: str, x: Floats, log_energy: Floats) -> Fit:
    """Fit `law` so that every point counts alike in proportion, as errors do that grow with the energy.

    Parameters
    ----------
    law : str
        One of :data:`LAWS`.
    x, log_energy : ndarray, shape (n_points,)
        Lengths above 0 and logarithms; at least as many points as the law has parameters.
    """
    if law == POWER:
        design = np.column_stack([np.ones_like(x), np.log(x)])
        found = np.linalg.lstsq(design, log_energy, rcond=None)[0]
        return Fit(law, found, _covariance(design), log_energy - design @ found)
    design = np.vander(x, LAWS[law], increasing=True)
    relative = design / np.exp(log_energy)[:, None]
    start = np.linalg.lstsq(relative, np.ones_like(x), rcond=None)[0]  # of relative residuals: close by
    if (design @ start <= 0).any():  # from above 0 no step leads below: its logarithm would be too far off
        start = np.eye(len(start))[0] * np.exp(log_energy.mean())
    solved = optimize.least_squares(
        lambda at: np.log(np.maximum(design @ at, _LEAST)) - log_energy,
        start,
        jac=lambda at: design / (design @ at)[:, None],
        x_scale="jac",
        ftol=1e-14,
        xtol=1e-14,
        gtol=1e-14,
    )
    return Fit(law, solved.x, _covariance(design / (design @ solved.x)[:, None]), -solved.fun)


def _covariance(jacobian: Floats) -> Floats:
    return np.asarray(np.linalg.pinv(jacobian.T @ jacobian), dtype=float)
