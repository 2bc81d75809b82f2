"""Expanding a design: which runs, in which order, and which settings are impossible."""

from __future__ import annotations

import csv
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from inference_energy.config import (
    FIRST_FACTORS,
    Campaign,
    ResolvedCampaign,
    Setting,
    read_campaign,
    read_models,
    resolve,
)
from inference_energy.design import expand, find, setting_id
from inference_energy.errors import DesignError

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "resources" / "published"
MODELS = read_models(ROOT / "config" / "models.yaml")


def _campaign(**changes: Any) -> ResolvedCampaign:
    content = {
        "name": "c",
        "title": "t",
        "description": "d",
        "seed": 1,
        "base": {"model": "llama-3.2-1b"},
        "studies": {"s": {"question": "q", "vary": {"batch_size": [1, 2, 4, 8], "precision": ["float32", "float16"]}}},
        **changes,
    }
    return resolve(Campaign.model_validate(content), MODELS, "config/campaigns/c.yaml")


def _refusal(**study: Any) -> str:
    with pytest.raises(DesignError) as caught:
        expand(_campaign(studies={"s": {"question": "q", **study}}), "config/campaigns/c.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the published grid --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thesis() -> ResolvedCampaign:
    path = ROOT / "config" / "campaigns" / "thesis.yaml"
    return resolve(read_campaign(path), MODELS, str(path))


def test_the_thesis_grid_is_the_published_one(thesis: ResolvedCampaign) -> None:
    runs = expand(thesis)
    assert len(runs) == 4224
    assert len({run.setting for run in runs}) == 2112
    assert Counter(run.levels.model for run in runs) == {"llama-3.2-1b": 2112, "llama-3.2-3b": 2112}
    with (PUBLISHED / "baker_grid_configs.csv").open() as file:
        published = Counter(
            (int(row["num_processes"]), int(row["batch_size"]), row["precision"], row["latency_level"])
            for row in csv.DictReader(file)
        )
    for model in thesis.models:
        ours = Counter(_published_name(run.levels) for run in runs if run.levels.model == model and run.cycle == 1)
        assert ours == published


def _published_name(levels: Setting) -> tuple[int, int, str, str]:
    precision = {"float32": "fp32", "float16": "fp16"}.get(levels.precision, levels.precision)
    latency = {
        "none": "no_latency",
        "constant": f"const_{levels.delay_min_s}_{levels.delay_max_s}",
        "burst": f"bursty_{levels.delay_min_s}_{levels.delay_max_s}_i{levels.burst_interval_s or 0:.0f}"
        f"_s{levels.burst_size}",
    }[levels.traffic]
    return levels.n_gpus, levels.batch_size, precision, latency


def test_the_thesis_grid_has_the_published_setup(thesis: ResolvedCampaign) -> None:
    for run in expand(thesis):
        levels = run.levels
        assert (levels.n_prompts, levels.n_input_tokens, levels.n_output_tokens) == (128, 128, 128)
        assert (levels.decoding, levels.top_p, levels.sampling_temperature) == ("top_p", 0.8, 0.8)
        assert levels.parallelism == ("none" if levels.n_gpus == 1 else "replicas_duplicated")
        assert levels.delay_every == "batch"
    with (PUBLISHED / "baker_grid_latency_levels.csv").open() as file:
        published = {
            (row["delay_min_s"], row["delay_max_s"], row["burst_interval_s"], row["burst_size_batches"])
            for row in csv.DictReader(file)
        }
    ours = {
        tuple(
            "" if level is None else f"{level:.16g}"
            for level in (
                run.levels.delay_min_s,
                run.levels.delay_max_s,
                run.levels.burst_interval_s,
                run.levels.burst_size,
            )
        )
        for run in expand(thesis)
    }
    assert ours == {tuple(level.removesuffix(".0") for level in levels) for levels in published}


def test_expanding_the_thesis_grid_is_fast(thesis: ResolvedCampaign) -> None:
    started_s = time.perf_counter()
    expand(thesis)
    assert time.perf_counter() - started_s < 1.0  # takes 0.04 s: only a blunder reaches the limit


# --- which runs, in which order ------------------------------------------------------------------


def test_every_setting_is_measured_once_in_every_cycle() -> None:
    runs = expand(_campaign(n_cycles=3))
    assert len(runs) == 8 * 3
    assert set(Counter((run.setting, run.cycle) for run in runs).values()) == {1}
    assert [run.order for run in runs] == list(range(24))
    assert [run.cycle for run in runs] == sorted(run.cycle for run in runs)


def test_the_order_is_shuffled_by_the_seed_and_anew_in_every_cycle() -> None:
    def order(seed: int, cycle: int) -> list[str]:
        return [run.setting for run in expand(_campaign(seed=seed)) if run.cycle == cycle]

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)
    assert sorted(order(1, 1)) == sorted(order(2, 2))


def test_nearer_levels_win() -> None:
    study = {
        "question": "q",
        "fixed": {"batch_size": 4, "n_input_tokens": 4},
        "settings": [{"n_input_tokens": 8}],
        "vary": {"precision": ["int8"]},
    }
    (first, _) = expand(
        _campaign(base={"model": "llama-3.2-1b", "batch_size": 2, "precision": "float32"}, studies={"s": study})
    )
    assert (first.levels.batch_size, first.levels.n_input_tokens, first.levels.precision) == (4, 8, "int8")


def test_settings_are_crossed_with_vary() -> None:
    study = {"question": "q", "settings": [{}, {"attention": "eager"}], "vary": {"batch_size": [1, 2, 4]}}
    assert len(expand(_campaign(studies={"s": study}))) == 2 * 3 * 2


def test_a_setting_named_twice_is_measured_once() -> None:
    study = {"question": "q", "vary": {"batch_size": [1, 1, 2]}}
    assert len(expand(_campaign(studies={"s": study}))) == 2 * 2


def test_the_same_setting_in_two_studies_is_measured_for_each() -> None:
    study = {"question": "q", "vary": {"batch_size": [1]}}
    assert {run.study for run in expand(_campaign(studies={"a": study, "b": study}))} == {"a", "b"}


def test_setting_ids_are_readable_stable_and_distinct() -> None:
    levels = Setting(model="llama-3.2-1b", precision="float16", batch_size=8)
    assert setting_id(levels).startswith("llama-3.2-1b_fp16_b8_")
    assert setting_id(levels) == setting_id(Setting(**levels.model_dump()))
    assert setting_id(levels) != setting_id(levels.model_copy(update={"attention": "eager"}))


def test_a_factor_that_comes_later_renames_only_the_settings_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, eager = Setting(model="m"), Setting(model="m", attention="eager")
    before = [setting_id(plain), setting_id(eager)]
    monkeypatch.setattr("inference_energy.design.FIRST_FACTORS", FIRST_FACTORS - {"attention"})
    monkeypatch.delitem(Setting.model_fields, "attention")  # as if it did not exist: its level is not counted
    original = Setting.model_dump
    monkeypatch.setattr(
        Setting,
        "model_dump",
        lambda self, **options: {k: v for k, v in original(self, **options).items() if k != "attention"},
    )
    without = setting_id(plain)
    monkeypatch.undo()
    monkeypatch.setattr("inference_energy.design.FIRST_FACTORS", FIRST_FACTORS - {"attention"})
    assert setting_id(plain) == without
    assert setting_id(eager) not in {without, *before[:1]}


def test_find_returns_the_run_or_says_what_it_looked_for() -> None:
    runs = expand(_campaign())
    assert find(runs, runs[5].run_id) is runs[5]
    with pytest.raises(DesignError, match=r"'s/none\.c1' is not in the design of 16 runs"):
        find(runs, "s/none.c1")


# --- impossible settings: one paragraph each -----------------------------------------------------


def test_batch_size_zero() -> None:
    assert _refusal(vary={"batch_size": [0]}) == (
        "config/campaigns/c.yaml: studies.s.vary.batch_size: impossible setting: found 0. Expected: at least 1."
        " All levels: model=llama-3.2-1b, batch_size=0."
    )


@pytest.mark.parametrize(
    ("study", "key"),
    [
        ({"fixed": {"batch_size": 0}}, "studies.s.fixed.batch_size"),
        ({"settings": [{"batch_size": 0}]}, "studies.s.settings.batch_size"),
    ],
)
def test_the_key_at_fault_is_named(study: dict[str, Any], key: str) -> None:
    assert _refusal(**study).startswith(f"config/campaigns/c.yaml: {key}: impossible setting: found 0.")


def test_a_fault_in_the_base_is_named() -> None:
    with pytest.raises(DesignError, match=r"base\.batch_size: impossible setting: found 0"):
        expand(_campaign(base={"model": "tiny-llama", "batch_size": 0}, studies={"s": {"question": "q"}}))


def test_three_way_tensor_parallelism_of_eight_heads() -> None:
    message = _refusal(fixed={"model": "llama-3.2-3b", "parallelism": "tensor"}, vary={"n_gpus": [3]})
    assert message == (
        "config/campaigns/c.yaml: studies.s: tensor parallelism over n_gpus=3 GPUs cannot split the 8 key value heads"
        " of llama-3.2-3b. Expected: a divisor of 8. Change n_gpus, or use replicas."
    )


@pytest.mark.parametrize("n_gpus", [2, 4, 8])
def test_tensor_parallelism_that_splits_the_heads(n_gpus: int) -> None:
    study = {"question": "q", "fixed": {"parallelism": "tensor", "n_gpus": n_gpus}}
    assert len(expand(_campaign(studies={"s": study}))) == 2


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ({"precision": ["fp16"]}, "found 'fp16'. Known: bfloat16, float16, float32, int4, int8, tf32."),
        ({"batch_size": ["many"]}, "found 'many'. Expected: a whole number."),
        ({"batch_size": [1.5]}, "found 1.5. Expected: a whole number."),
        ({"top_p": [0.9]}, "studies.s: impossible setting: decoding 'greedy' with top_p=0.9"),
        (
            {"n_input_tokens": [131072]},
            "n_input_tokens + n_output_tokens = 131200 do not fit llama-3.2-1b. Expected: at most 131072",
        ),
        ({"weights": ["hub"], "model": ["tiny-llama"]}, "tiny-llama is a shape of our own and has no weights on a hub"),
    ],
)
def test_impossible_settings(levels: dict[str, list[object]], words: str) -> None:
    assert words in _refusal(vary=levels)


def test_a_setting_without_a_model() -> None:
    with pytest.raises(DesignError) as caught:
        expand(_campaign(base={}, studies={"s": {"question": "q"}}), "c.yaml")
    assert str(caught.value) == (
        "c.yaml: studies.s: no setting says its model. Give model in base, or in fixed or vary of this study."
    )
