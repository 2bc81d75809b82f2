"""Few of many combinations, chosen so that effects can still be estimated, and a balanced order of them.

The model behind a choice is linear in the factors that vary among the combinations: a main effect
of every level of every factor and, with `interactions`, every product of two factors. Columns that
the combinations themselves cannot tell apart are counted once: two factors that always change
together are one, and a factor that exists under one level of another only (the size of a burst)
is nested in it by itself. Not estimable, and assumed to be small, is what three factors do
together.

The combinations are chosen for D-optimality (the largest determinant of the information matrix) by
Fedorov's exchange: begin with a greedy choice, then exchange a chosen combination for the one that
raises the determinant most, until no exchange does. That is a local optimum, and the efficiency
says how good it is. Python's libraries for designs (pyDOE3, dexpy) make such choices for numeric
factors that can be combined freely, not for lists of categorical ones.

References
----------
V. V. Fedorov, *Theory of Optimal Experiments*, 1972, chapter 3; the exchange of one row at a time is
that of R. D. Cook and C. J. Nachtsheim, *Technometrics* 22 (1980), 315-324.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from inference_energy.errors import DesignError

Array = npt.NDArray[np.float64]

#: Combinations as a table that can be remembered: names of the factors that vary, and one tuple of levels each.
Rows = tuple[tuple[str, ...], tuple[tuple[Hashable, ...], ...]]

_RANK_TOLERANCE = 1e-8  # of a column that follows from others, relative to its length
_DIGITS = 7  # gains that agree to these are equal: the choice must not depend on a machine's rounding
_PASSES_MAX = 50


@dataclass(frozen=True)
class Efficiency:
    """What a fraction can estimate, compared with all combinations.

    Attributes
    ----------
    n_candidates, n_settings, n_parameters : int
        Combinations, chosen ones, and parameters of the model, all of which can be estimated.
    d_efficiency : float
        Information of one chosen setting over that of one combination of all, per parameter (the p-th
        root of the determinants' ratio). 1: as good per setting as measuring all. A little more is
        possible where the list of combinations itself is not balanced.
    terms : mapping of str to float
        For each factor and each pair (``a x b``): variance that as many settings of all combinations
        would give over the fraction's variance, mean over the term's parameters.
    n_per_level : mapping of str to mapping
        How often each level of each factor was chosen.
    """

    n_candidates: int
    n_settings: int
    n_parameters: int
    d_efficiency: float
    terms: Mapping[str, float]
    n_per_level: Mapping[str, Mapping[Hashable, int]]


def rows_of(combinations: Sequence[Mapping[str, Hashable]]) -> Rows:
    """The factors that vary, without those whose level another one tells."""
    patterns: dict[str, tuple[int, ...]] = {}
    for factor in combinations[0]:
        numbers: dict[Hashable, int] = {}
        pattern = tuple(numbers.setdefault(levels[factor], len(numbers)) for levels in combinations)
        if len(numbers) > 1 and pattern not in patterns.values():
            patterns[factor] = pattern
    names = tuple(
        factor
        for factor, pattern in patterns.items()
        if not any(_tells(other, pattern) for name, other in patterns.items() if name != factor)
    )
    return names, tuple(tuple(levels[name] for name in names) for levels in combinations)


def _tells(finer: tuple[int, ...], coarser: tuple[int, ...]) -> bool:
    return len(set(zip(finer, coarser, strict=True))) == len(set(finer))


def balanced(rows: Rows) -> list[int]:
    """A sequence of all combinations of which every beginning has each level about equally often.

    Greedy: next comes the combination whose levels were used least so far, the first of equals.

    Returns
    -------
    list of int
        Places of the combinations.
    """
    _, levels = rows
    members: list[dict[Hashable, list[int]]] = [{} for _ in levels[0]]
    for place, row in enumerate(levels):
        for column, level in enumerate(row):
            members[column].setdefault(level, []).append(place)
    alike = [{level: np.array(places) for level, places in column.items()} for column in members]
    n_used = np.zeros(len(levels))  # of the levels of each combination, together
    sequence = []
    for _ in levels:
        place = int(np.argmin(n_used))
        sequence.append(place)
        for column, level in enumerate(levels[place]):
            n_used[alike[column][level]] += 1
        n_used[place] = np.inf
    return sequence


@lru_cache(maxsize=8)
def choose(rows: Rows, n_settings: int, seed: int, interactions: bool, where: str) -> tuple[int, ...]:
    """Places of the best `n_settings` of the combinations, ascending.

    Parameters
    ----------
    rows : Rows
        The combinations, of :func:`rows_of`.
    n_settings : int
        How many to choose.
    seed : int
        Decides between equals.
    interactions : bool
        Whether products of two factors must be estimable.
    where : str
        What to call the fraction in an error.

    Raises
    ------
    DesignError
        If there are fewer combinations than that, or fewer settings than parameters.
    """
    basis, _ = _model(rows, interactions)
    n_candidates, n_parameters = basis.shape
    if not n_parameters <= n_settings <= n_candidates:
        raise DesignError(
            f"{where}.n_settings",
            f"{n_settings} of {n_candidates} combinations",
            f"from {n_parameters} (the parameters of its effects{' and interactions' if interactions else ''}) to"
            f" {n_candidates}",
            "Change n_settings, or ask for main effects only (interactions: false)" if interactions else "",
        )
    shuffled = list(range(n_candidates))
    random.Random(f"{seed}/fraction").shuffle(shuffled)
    order = np.array(shuffled)
    return tuple(sorted(int(place) for place in order[_exchange(basis[order], n_settings)]))


def describe(rows: Rows, chosen: tuple[int, ...], interactions: bool) -> Efficiency:
    """How good a choice is."""
    basis, terms = _model(rows, interactions)
    part = basis[list(chosen)]
    information = part.T @ part / len(chosen)  # the identity, were all combinations chosen
    sign, logarithm = np.linalg.slogdet(information)
    estimable = sign > 0 and np.linalg.matrix_rank(part) == basis.shape[1]
    variances = np.diag(np.linalg.inv(information)) if estimable else np.full(basis.shape[1], np.inf)
    names, levels = rows
    return Efficiency(
        n_candidates=len(levels),
        n_settings=len(chosen),
        n_parameters=basis.shape[1],
        d_efficiency=float(np.exp(logarithm / basis.shape[1])) if estimable else 0.0,
        terms={name: float(1 / variances[columns].mean()) for name, columns in terms.items()},
        n_per_level={name: Counter(levels[place][column] for place in chosen) for column, name in enumerate(names)},
    )


def _model(rows: Rows, interactions: bool) -> tuple[Array, dict[str, slice]]:
    """Columns of the linear model, orthogonal over all combinations and of mean square 1.

    Returns
    -------
    (array of combinations x parameters, dict of str to slice)
        The first column is the intercept. Each term has the columns that earlier ones lack.
    """
    names, levels = rows
    n = len(levels)
    main = {name: _effects([row[column] for row in levels]) for column, name in enumerate(names)}
    blocks = dict(main)
    if interactions:
        for a, b in itertools.combinations(names, 2):
            blocks[f"{a} x {b}"] = (main[a][:, :, None] * main[b][:, None, :]).reshape(n, -1)
    basis: Array = np.ones((n, 1)) / np.sqrt(n)
    terms: dict[str, slice] = {}
    for name, block in blocks.items():
        lengths = np.linalg.norm(block, axis=0)
        rest = block / np.where(lengths > 0, lengths, 1)
        for _ in range(2):  # the second time removes what rounding left
            rest = rest - basis @ (basis.T @ rest)
        left, sizes, _ = np.linalg.svd(rest, full_matrices=False)
        independent = left[:, sizes > _RANK_TOLERANCE]
        if independent.shape[1]:
            terms[name] = slice(basis.shape[1], basis.shape[1] + independent.shape[1])
            basis = np.hstack([basis, independent])
    return basis * np.sqrt(n), terms


def _effects(levels: Sequence[Hashable]) -> Array:
    """Effects coding: a column for each level but the last, which is -1 in all of them."""
    known = list(dict.fromkeys(levels))
    indicators = np.array([[float(level == one) for one in known] for level in levels])
    coded: Array = indicators[:, :-1] - indicators[:, -1:]
    return coded


def _exchange(rows: Array, n_settings: int) -> list[int]:
    """Rows of a D-optimal choice, by exchanges from a greedy start."""
    n_parameters = rows.shape[1]
    inverse = np.eye(n_parameters) * 1e6  # as if a millionth of a full set were there: the start needs no rank
    chosen: list[int] = []
    free = np.ones(len(rows), dtype=bool)
    for _ in range(n_settings):
        gains = np.einsum("ij,jk,ik->i", rows, inverse, rows, optimize=True)
        place = _first_best(np.where(free, gains, -np.inf))
        inverse = _with(inverse, rows[place], 1.0)
        chosen.append(place)
        free[place] = False
    for _ in range(_PASSES_MAX):
        chosen_rows = rows[chosen]
        inverse[:] = np.linalg.inv(chosen_rows.T @ chosen_rows + np.eye(n_parameters) * 1e-6)
        n_exchanged = 0
        for position, out in enumerate(chosen):
            projected = rows @ inverse
            gains = np.einsum("ij,ij->i", projected, rows)
            crossed = projected @ rows[out]
            # Factor by which the determinant grows, less 1 (Fedorov's delta).
            growth = gains - gains[out] * (1 + gains) + crossed**2
            place = _first_best(np.where(free, growth, -np.inf))
            if growth[place] > 10.0**-_DIGITS:
                inverse = _with(_with(inverse, rows[place], 1.0), rows[out], -1.0)
                free[[out, place]] = True, False
                chosen[position] = place
                n_exchanged += 1
        if not n_exchanged:
            break
    return chosen


def _with(inverse: Array, row: Array, sign: float) -> Array:
    """Inverse of the information matrix with `row` added (sign 1) or taken away (-1): Sherman and Morrison."""
    column = inverse @ row
    return inverse - sign * np.outer(column, column) / (1 + sign * row @ column)


def _first_best(values: Array) -> int:
    """Place of the largest value, the first of those that agree to `_DIGITS` digits."""
    best = values.max()
    return int(np.argmax(values >= best - abs(best) * 10.0**-_DIGITS))
