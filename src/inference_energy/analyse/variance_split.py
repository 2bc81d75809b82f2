"""Where the variance of log energy comes from: settings, sittings, GPUs, runs or windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from inference_energy.errors import AnalysisError
from inference_energy.tables import KEY, above_zero, conform
from inference_energy.tables.spread import VARIANCE_SPLIT

Floats = NDArray[np.float64]
Ends = tuple[float, float]

COMPONENTS = ("setting", "sitting", "gpu", "run", "window")
# ASSUME: a setting whose kernels fill four fifths of the windows' time (NVML's utilisation) is bound by the GPU; the
# others without simulated waiting wait for the host's CPU, whose speed differs between hosts.
GPU_BOUND_FRACTION = 0.8

_ENERGY = "energy_j_per_output_token"
_KEY = [column.name for column in KEY]
_NOISELESS = 1e-12  # a standard deviation of logarithms below rounding
_ZERO = 1e-3  # a standard deviation over that of all runs within settings: as good as none


@dataclass(frozen=True)
class VarianceSplit:
    """Variance components of the logarithm of energy per output token.

    Attributes
    ----------
    components : DataFrame
        One row a group of settings and component.
    """

    components: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``variance_split``."""
        return conform(self.components, VARIANCE_SPLIT)


def variance_split(
    runs: pd.DataFrame, windows: pd.DataFrame, boundaries: pd.DataFrame, *, confidence: float
) -> VarianceSplit:
    r"""Split the variance of log energy per output token into five components.

    Window *w* of run *r* of setting *s*, in sitting *h* on GPU *g*, has

    .. math:: \log e = \mu + a_s + b_h + c_g + d_r + \varepsilon_{rw},

    settings crossed with sittings, GPUs within sittings. A sitting is one stretch on one machine, so
    its component holds the host's. The run's component is what is left between runs of
    one setting in one sitting on one GPU: another process, another cycle, and how a setting and a
    host suit each other. A set of GPUs counts as one GPU.

    *Windows*: pooled variance within runs without simulated waiting (waiting makes windows unlike by
    design: together they hold whole periods), interval from :math:`\chi^2`. *Sittings, GPUs, runs*: REML
    on run means after each setting's mean is taken off, so that only settings measured more than
    once speak; with settings absorbed, the likelihood needs matrices no larger than the number of
    sittings and GPUs, and equals that of statsmodels' ``MixedLM`` with settings as fixed effects
    (a test compares them), which takes minutes for crossed effects. Intervals are profiles of the
    restricted likelihood. *Settings*: variance of settings' means, less their noise, with sittings and
    GPUs taken off as predicted; interval from :math:`\chi^2` with the degrees of freedom
    :math:`2 / (2 / (n - 1) + \kappa / n)` that the excess kurtosis :math:`\kappa` of the means leaves.

    The intraclass correlation is that of two runs of one setting, ICC(1), from the one-way analysis of
    variance of settings measured more than once, with the F interval.

    Parameters
    ----------
    runs, windows, boundaries : DataFrame
        The tables of these names; runs that are no deployments are left out.
    confidence : float
        Of the intervals. Simulated coverage at 95 %, 15 settings in five sittings: 95 to 97 % for
        sittings, GPUs, runs and windows, 90 % for settings (60 campaigns: chance adds 6 %).

    Raises
    ------
    AnalysisError
        If no window of a deployment has an energy, or one is not above 0.

    References
    ----------
    Searle, Casella and McCulloch (1992), *Variance Components*, chapter 6. Patterson and Thompson (1971),
    *Biometrika* 58, 545-554. Box (1953), *Biometrika* 40, 318-335. Shrout and Fleiss (1979),
    *Psychological Bulletin* 86, 420-428.
    """
    known = _run_means(runs, windows, boundaries)
    busy = known["setting"].map(known.groupby("setting")["gpu_utilisation_fraction"].mean())
    bound = known["alike"] & (busy >= GPU_BOUND_FRACTION)
    groups = {"all": known, "GPU-bound": known[bound], "host-bound": known[known["alike"] & ~bound & busy.notna()]}
    groups["with waiting"] = known[~known["alike"]]
    rows = [
        {"settings": name} | row
        for name, group in groups.items()
        if len(group)
        for row in _rows(group.sort_values(_KEY), confidence)
    ]
    return VarianceSplit(pd.DataFrame(rows, columns=VARIANCE_SPLIT.names))


def _run_means(runs: pd.DataFrame, windows: pd.DataFrame, boundaries: pd.DataFrame) -> pd.DataFrame:
    """Runs of deployments with mean, variance and number of their windows' logarithms."""
    deployed = boundaries[boundaries["deployment"].fillna(False).astype(bool)][_KEY].drop_duplicates()
    shown = windows[windows[_ENERGY].notna()].merge(deployed, on=_KEY)
    if shown.empty:
        raise AnalysisError(
            "table windows",
            f"none of {len(windows)} windows has {_ENERGY} of a deployed setting",
            "at least one measured window",
            "See the column status of table runs",
        )
    above_zero(shown, _ENERGY, "table windows")
    logs = shown[_KEY].assign(log=np.log(shown[_ENERGY].astype(float)))
    found = logs.groupby(_KEY, as_index=False)["log"].agg(mean="mean", var="var", n_windows="count")
    names = ["sitting", "gpu_uuid_hash", "gpu_utilisation_fraction", "traffic"]
    found = found.merge(runs[[*_KEY, *names]], on=_KEY)
    return pd.DataFrame(found.assign(alike=~found["traffic"].ne("none").fillna(False).astype(bool)))


def _rows(runs: pd.DataFrame, confidence: float) -> list[dict[str, object]]:
    """The five components of one group of settings."""
    alike = runs[runs["alike"]]
    freedom_windows = int((alike["n_windows"] - 1).sum())
    within = float((alike["var"].fillna(0) * (alike["n_windows"] - 1)).sum())
    window = within / freedom_windows if freedom_windows else np.nan
    n_windows = len(runs) / float((1 / runs["n_windows"]).sum())
    sds, ends, freedoms, reasons, predicted = _between_runs(runs, confidence)
    share = (0.0 if np.isnan(window) else window) / n_windows
    variances = {"sitting": sds["sitting"] ** 2, "gpu": sds["gpu"] ** 2, "run": max(sds["run"] ** 2 - share, 0.0)}
    if np.isnan(sds["run"]):
        variances["run"] = np.nan
    low, high = (np.sqrt(np.maximum(np.square(end) - share, 0.0)) for end in ends["run"])
    ends["run"] = float(low), float(high)
    variances["window"] = window
    ends["window"] = _chi_square_ends(window, freedom_windows, confidence)
    means = (runs["mean"] - predicted).groupby(runs["setting"]).agg(["mean", "count"])
    setting, ends["setting"] = _between_settings(means, sds["run"], confidence)
    variances = {"setting": setting} | variances
    n_settings = len(means)
    freedoms |= {"setting": n_settings - 1, "window": freedom_windows}
    if n_settings < 2:
        reasons["setting"] = "a single setting"
    if not freedom_windows:
        reasons["window"] = "simulated waiting makes windows unlike by design" if alike.empty else "one window a run"
    levels = {
        "setting": n_settings,
        "sitting": runs["sitting"].nunique(),
        "gpu": runs[["sitting", "gpu_uuid_hash"]].drop_duplicates().shape[0],
        "run": len(runs),
        "window": int(runs["n_windows"].sum()),
    }
    total = np.nan if np.isnan(variances["run"]) else float(np.nansum(list(variances.values())))
    correlation = intraclass_correlation(runs["setting"], runs["mean"], confidence)
    return [
        {
            "component": name,
            "n_levels": levels[name],
            "n_freedom": freedoms[name],
            "cv": np.sqrt(variances[name]),
            "cv_low": ends[name][0],
            "cv_high": ends[name][1],
            "variance_fraction": variances[name] / total if total > 0 else np.nan,
            **{
                f"intraclass_correlation{end}": value if name == "setting" else np.nan
                for end, value in zip(("", "_low", "_high"), correlation, strict=True)
            },
            "n_windows_per_run": n_windows,
            "reason": reasons.get(name),
        }
        for name in COMPONENTS
    ]


def _between_settings(means: pd.DataFrame, noise: float, confidence: float) -> tuple[float, Ends]:
    """Variance between settings (mean and count of their runs) and the ends of its square root."""
    values = means["mean"].to_numpy(float)
    n = len(values)
    if n < 2:
        return np.nan, (np.nan, np.nan)
    error = 0.0 if np.isnan(noise) else noise**2 * float((1 / means["count"]).mean())
    variance = float(values.var(ddof=1))
    tailed = float(stats.kurtosis(values)) if variance > _NOISELESS**2 else 0.0
    ends = _chi_square_ends(variance, 2 / (2 / (n - 1) + tailed / n), confidence)
    low, high = (float(np.sqrt(max(end**2 - error, 0.0))) for end in ends)
    return max(variance - error, 0.0), (low, high)


def _chi_square_ends(variance: float, freedom: float, confidence: float) -> Ends:
    """Ends of the square root of a mean square with `freedom` degrees of freedom."""
    if not freedom:
        return np.nan, np.nan
    tails = stats.chi2.ppf([0.5 * (1 + confidence), 0.5 * (1 - confidence)], freedom)
    low, high = np.sqrt(variance * freedom / tails)
    return float(low), float(high)


def _between_runs(
    runs: pd.DataFrame, confidence: float
) -> tuple[dict[str, float], dict[str, Ends], dict[str, int], dict[str, str], Floats]:
    """Standard deviations of sitting, GPU and run (its windows included), their ends, degrees of freedom, reasons.

    The last item is what sitting and GPU are predicted to add to each run.
    """
    gpus = runs["sitting"].astype(str) + "/" + runs["gpu_uuid_hash"].astype(str)
    blocks = {"sitting": _indicators(runs["sitting"]), "gpu": _indicators(gpus)}
    design = np.hstack(list(blocks.values()))
    owner = np.repeat([0, 1], [block.shape[1] for block in blocks.values()])
    settings = _indicators(runs["setting"])
    y = runs["mean"].to_numpy(float) - runs["mean"].mean()
    within, of_y = _centred(design, settings), _centred(y[:, None], settings)[:, 0]
    gram, cross, square = within.T @ within, within.T @ of_y, float(of_y @ of_y)
    freedom = len(runs) - settings.shape[1]
    rank_sitting = _rank(gram[owner == 0][:, owner == 0])
    freedoms = {"sitting": rank_sitting, "gpu": _rank(gram) - rank_sitting, "run": freedom - _rank(gram)}
    reasons = _reasons(runs, freedoms)
    names = [name for name in ("sitting", "gpu") if freedoms[name] and freedoms["run"]]
    sds = dict.fromkeys(("sitting", "gpu", "run"), np.nan)
    ends: dict[str, Ends] = dict.fromkeys(("sitting", "gpu", "run"), (np.nan, np.nan))
    if not freedoms["run"]:
        return sds, ends, freedoms, reasons, np.zeros(len(runs))
    kept = np.isin(owner, [0 if name == "sitting" else 1 for name in names]) & (np.diag(gram) > 0)
    place = np.searchsorted(np.unique(owner[kept]), owner[kept])
    likelihood = Restricted(gram[kept][:, kept], cross[kept], square, freedom, place, len(names))
    found, found_ends = likelihood.fit(confidence)
    for name, value, pair in zip([*names, "run"], found, found_ends, strict=True):
        sds[name], ends[name] = value, pair
    return sds, ends, freedoms, reasons, design[:, kept] @ likelihood.predicted(found)


def _reasons(runs: pd.DataFrame, freedoms: dict[str, int]) -> dict[str, str]:
    """Why a component is missing, or with what it is mixed."""
    reasons = {}
    if not freedoms["run"]:
        reasons = dict.fromkeys(
            ("sitting", "gpu", "run"),
            "no setting was measured often enough to tell a run from its GPU and sitting",
        )
    else:
        if not freedoms["sitting"]:
            reasons["sitting"] = "no setting was measured in two sittings"
        if not freedoms["gpu"]:
            reasons["gpu"] = "sittings differ in their GPUs and no setting was measured on two GPUs of one sitting"
    if "sitting" not in reasons:
        places = runs[["setting", "sitting", "cycle"]].drop_duplicates()
        several = places[places.groupby("setting")["sitting"].transform("nunique") > 1]
        mixed = several.duplicated(["setting", "sitting"]) | several.duplicated(["setting", "cycle"])
        reasons["sitting"] = "a sitting is one host: the two cannot be told apart"
        if not mixed.any():
            reasons["sitting"] = "each sitting was another cycle: sitting, host and cycle cannot be told apart"
    return reasons


def _indicators(names: pd.Series) -> Floats:
    codes, levels = pd.factorize(names, sort=True)
    return np.asarray(codes[:, None] == np.arange(len(levels)), dtype=float)


def _centred(values: Floats, settings: Floats) -> Floats:
    """`values` (n_runs, n) less their means by setting (n_runs, n_settings)."""
    return np.asarray(values - settings @ ((settings.T @ values) / settings.sum(axis=0)[:, None]))


def _rank(gram: Floats) -> int:
    return int(np.linalg.matrix_rank(gram, tol=1e-9, hermitian=True)) if gram.size else 0


class Restricted:
    r"""Restricted likelihood of standard deviations with settings absorbed.

    Minus twice the logarithm, up to a constant, with :math:`\Gamma` diagonal of variances over that of
    runs, *A*, *b*, *c* the sums of squares and products within settings, *f* their degrees of freedom:

    .. math:: f \log \sigma^2 + \log |I + A \Gamma| + (c - b' \Gamma (I + A \Gamma)^{-1} b) / \sigma^2.
    """

    def __init__(self, gram: Floats, cross: Floats, square: float, freedom: int, place: NDArray[np.int64], n: int):
        self.scale = float(np.sqrt(square / freedom))  # of logarithms: standard deviations are fitted over it
        unit = self.scale if self.scale > _NOISELESS else 1.0
        self.gram, self.cross = gram, cross / unit
        self.fixed = np.linalg.pinv(gram, hermitian=True) @ self.cross  # effects by least squares
        self.unexplained = max(square / unit**2 - float(self.cross @ self.fixed), 0.0)
        self.freedom, self.place, self.n = freedom, place, n
        self.best: Floats | None = None  # where profiles start

    def deviance(self, sds: Floats) -> tuple[float, Floats]:
        """Minus twice the log likelihood of standard deviations (the components', then the runs'), and its slopes."""
        ratios = (sds[self.place] / sds[-1]) ** 2
        mixed = np.eye(len(ratios)) + self.gram * ratios
        inverse = np.linalg.inv(mixed)
        shrunk = inverse @ self.cross
        rest = self.unexplained + float(self.fixed @ shrunk)  # no small difference of large numbers
        by_ratio = np.diag(inverse @ self.gram) - (shrunk / sds[-1]) ** 2
        slopes = np.zeros(self.n + 1)
        np.add.at(slopes, self.place, 2 * sds[self.place] / sds[-1] ** 2 * by_ratio)
        slopes[-1] = 2 * self.freedom / sds[-1] - 2 * rest / sds[-1] ** 3 - 2 * float(ratios @ by_ratio) / sds[-1]
        value = 2 * self.freedom * np.log(sds[-1]) + np.linalg.slogdet(mixed)[1] + rest / sds[-1] ** 2
        return float(value), slopes

    def fit(self, confidence: float) -> tuple[list[float], list[Ends]]:
        """Estimates and ends of their profiles, components first, runs last."""
        if self.scale <= _NOISELESS:
            return [0.0] * (self.n + 1), [(0.0, 0.0)] * (self.n + 1)
        best, least = self._least({})
        best[:-1][best[:-1] < 5 * _ZERO] = 0.0
        self.best = best
        limit = least + float(stats.chi2.ppf(confidence, 1))
        ends = [self._ends(index, best[index], limit) for index in range(self.n + 1)]
        return [float(value) * self.scale for value in best], ends

    def predicted(self, sds: list[float]) -> Floats:
        """Best linear unbiased predictions of the levels' effects."""
        if self.scale <= _NOISELESS or not self.n:
            return np.zeros(len(self.place))
        ratios = (np.asarray(sds)[self.place] / sds[-1]) ** 2
        shrunk = np.linalg.solve(np.eye(len(ratios)) + self.gram * ratios, self.cross)
        return np.asarray(ratios * shrunk * self.scale)

    def _least(self, held: dict[int, float]) -> tuple[Floats, float]:
        """Standard deviations of least deviance with some of them held."""
        free = [index for index in range(self.n + 1) if index not in held]
        full = np.ones(self.n + 1)
        for index, value in held.items():
            full[index] = value

        def deviance(logs: Floats) -> tuple[float, Floats]:  # by logarithms: sizes differ by orders of magnitude
            full[free] = np.exp(logs)
            value, slopes = self.deviance(full)
            return value, slopes[free] * full[free]

        if not free:
            return full, self.deviance(full)[0]
        starts = ([0.7] * len(free), [0.1] * len(free)) if self.best is None else (np.maximum(self.best[free], 0.01),)
        bounds = [(np.log(_ZERO), np.log(1e2))] * len(free)
        tried = [
            optimize.minimize(deviance, np.log(each), jac=True, method="L-BFGS-B", bounds=bounds) for each in starts
        ]
        best = min(tried, key=lambda each: float(each.fun))
        full[free] = np.exp(best.x)
        return full.copy(), float(best.fun)

    def _ends(self, index: int, at: float, limit: float) -> Ends:
        """Where the profile of one standard deviation meets `limit`, in units of the logarithm."""

        def over(value: float) -> float:
            return self._least({index: value})[1] - limit

        centre, above = max(at, _ZERO), 2 * max(at, 0.1)
        while over(above) < 0 and above < 1e2:
            above *= 2
        low = 0.0 if over(_ZERO) <= 0 else _root(over, _ZERO, centre)
        high = _root(over, centre, above) if above < 1e2 else np.nan
        return low * self.scale, high * self.scale


def _root(function: Callable[[float], float], start: float, end: float) -> float:
    """Where `function` changes its sign; the nearer end where rounding hides that, as when nothing is left to fit."""
    at_start, at_end = function(start), function(end)
    if at_start * at_end > 0:
        return start if abs(at_start) < abs(at_end) else end
    return float(optimize.brentq(function, start, end, rtol=1e-3, xtol=1e-5))


def intraclass_correlation(settings: pd.Series, logs: pd.Series, confidence: float) -> tuple[float, float, float]:
    r"""ICC(1) of runs of one setting, with its F interval; missing where no setting was measured twice.

    With mean squares *B* between *k* settings and *W* within them, and
    :math:`n_0 = (N - \sum n_i^2 / N) / (k - 1)`: :math:`(B - W) / (B + (n_0 - 1) W)`. Exact where all
    settings have equally many runs.
    """
    counts = logs.groupby(settings).transform("count")
    logs, settings = logs[counts > 1].astype(float), settings[counts > 1]
    by = logs.groupby(settings).agg(["mean", "count"])
    n, k = len(logs), len(by)
    if k < 2:
        return np.nan, np.nan, np.nan
    within = float(((logs - logs.groupby(settings).transform("mean")) ** 2).sum()) / (n - k)
    between = float((by["count"] * (by["mean"] - logs.mean()) ** 2).sum()) / (k - 1)
    runs_each = (n - float((by["count"] ** 2).sum()) / n) / (k - 1)
    if within <= _NOISELESS**2:
        return (1.0, 1.0, 1.0) if between > within else (np.nan, np.nan, np.nan)
    ratio, tail = between / within, 0.5 * (1 + confidence)
    ratios = (ratio, ratio / stats.f.ppf(tail, k - 1, n - k), ratio * stats.f.ppf(tail, n - k, k - 1))
    estimate, low, high = ((each - 1) / (each + runs_each - 1) for each in ratios)
    return float(estimate), float(low), float(high)
