"""Balanced fractions: known optima, what is estimable, and the fractions that the project ships."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from inference_energy import fraction
from inference_energy.config import ResolvedCampaign, read_campaign, read_models, resolve
from inference_energy.design import fractions
from inference_energy.errors import DesignError

ROOT = Path(__file__).resolve().parents[2]
CUBE = [dict(zip("abc", levels, strict=True)) for levels in itertools.product((1, 2), repeat=3)]


def test_half_of_a_cube_is_the_known_orthogonal_half() -> None:
    rows = fraction.rows_of(CUBE)
    chosen = fraction.choose(rows, 4, 1, False, "here")
    levels = np.array([[CUBE[place][factor] for factor in "abc"] for place in chosen]) * 2 - 3
    assert abs(levels.prod(axis=1).sum()) == 4  # one of the two halves a*b*c = 1 and a*b*c = -1
    found = fraction.describe(rows, chosen, False)
    assert found.d_efficiency == pytest.approx(1, rel=1e-9)
    assert found.terms == {name: pytest.approx(1, rel=1e-9) for name in "abc"}
    assert (found.n_candidates, found.n_settings, found.n_parameters) == (8, 4, 4)


def test_a_bad_half_is_seen() -> None:
    rows = fraction.rows_of(CUBE)
    one_level_of_a = tuple(place for place, levels in enumerate(CUBE) if levels["a"] == 1)
    found = fraction.describe(rows, one_level_of_a, False)
    assert found.d_efficiency == 0
    assert found.n_per_level["a"] == {1: 4}


def test_efficiency_agrees_with_the_formula() -> None:
    """Three quarters of a square: |X'X| = 16 and |full X'X| / (4/3)**3 = 27, so D = (16/27)**(1/3)."""
    square = [{"a": a, "b": b} for a in (1, 2) for b in (1, 2)]
    found = fraction.describe(fraction.rows_of(square), (0, 1, 2), False)
    assert found.d_efficiency == pytest.approx((16 / 27) ** (1 / 3), rel=1e-9)
    assert found.terms["a"] == pytest.approx(2 / 3, rel=1e-9)  # variance 1/2 instead of 1/3


def test_the_exchange_finds_what_trying_everything_finds() -> None:
    rows = fraction.rows_of([{"a": a, "b": b} for a in range(3) for b in range(4)])
    everything = max(
        fraction.describe(rows, chosen, False).d_efficiency for chosen in itertools.combinations(range(12), 7)
    )
    found = fraction.describe(rows, fraction.choose(rows, 7, 1, False, "here"), False)
    assert found.d_efficiency == pytest.approx(everything, rel=1e-6)


def test_a_factor_that_another_one_tells_is_counted_once() -> None:
    names, _ = fraction.rows_of([{"n": n, "shared": n > 1, "same": -n, "constant": 0} for n in (1, 2, 3)])
    assert names == ("n",)


def test_a_nested_factor_adds_only_what_it_can_tell() -> None:
    bursts = [(False, None), (True, 8), (True, 16)]
    crossed = [{"burst": burst, "size": size, "a": a} for burst, size in bursts for a in (1, 2)]
    rows = fraction.rows_of(crossed)
    assert fraction.describe(rows, tuple(range(6)), True).n_parameters == 6  # 3 x 2, fully estimable


@pytest.mark.parametrize("n", [6, 9])
def test_too_few_or_too_many_settings_are_refused(n: int) -> None:
    with pytest.raises(DesignError) as caught:
        fraction.choose(fraction.rows_of(CUBE), n, 1, True, "c.yaml: studies.s.fraction")
    assert str(caught.value).startswith(
        f"c.yaml: studies.s.fraction.n_settings: {n} of 8 combinations. Expected: from 7 (the parameters"
    )


def test_the_seed_decides_between_equals_and_nothing_else() -> None:
    rows = fraction.rows_of(CUBE)
    found = {seed: fraction.choose(rows, 4, seed, False, "here") for seed in range(8)}
    assert found[3] == fraction.choose.__wrapped__(rows, 4, 3, False, "here")
    assert len(set(found.values())) == 2


def test_every_beginning_of_a_balanced_sequence_is_balanced() -> None:
    combinations = [{"a": a, "b": b} for a in range(4) for b in range(6)]
    sequence = fraction.balanced(fraction.rows_of(combinations))
    assert sorted(sequence) == list(range(24))
    for n in range(1, 25):
        for factor, n_levels in (("a", 4), ("b", 6)):
            used = Counter(combinations[place][factor] for place in sequence[:n])
            assert max(used.values()) - (min(used.values()) if len(used) == n_levels else 0) <= 2


# --- what the project ships ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def h200() -> ResolvedCampaign:
    path = ROOT / "config" / "campaigns" / "h200.yaml"
    return resolve(read_campaign(path), read_models(ROOT / "config" / "models.yaml"), str(path))


def test_the_kept_choices_are_what_a_search_finds(h200: ResolvedCampaign) -> None:
    content = h200.model_dump()
    kept = {name: part.chosen for name, part, _ in fractions(h200)}
    assert set(kept) == {"decoding", "grid"}
    for name in kept:
        content["campaign"]["studies"][name]["fraction"]["chosen"] = None
    searched = {name: part.chosen for name, part, _ in fractions(ResolvedCampaign.model_validate(content))}
    assert searched == kept


def test_the_grids_fraction_can_estimate_all_main_effects_and_two_way_interactions(h200: ResolvedCampaign) -> None:
    (grid,) = (found for name, _, found in fractions(h200) if name == "grid")
    assert (grid.n_candidates, grid.n_settings) == (2112, 192)
    assert grid.d_efficiency > 0.88
    assert min(grid.terms.values()) > 0.55
    for factor in ("model", "precision", "batch_size", "n_gpus"):
        used = grid.n_per_level[factor].values()
        assert max(used) - min(used) <= 0.15 * max(used)
    # main effects 1+3+5+3+5, pairs of the first four 50, with the latency's 5 main effects 60, within latency 4
    assert grid.n_parameters == 1 + 17 + 50 + 60 + 4
