"""Expanding a design: which runs, in which order, and which settings are impossible."""

from __future__ import annotations

import csv
import hashlib
import itertools
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
    read_resolved,
    resolve,
)
from inference_energy.design import Run, anchor_studies, expand, find, fractions, setting_id
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


# --- portions, blocks, anchors -------------------------------------------------------------------


def test_an_archived_campaigns_order_is_for_good() -> None:
    runs = expand(read_resolved(ROOT / "results" / "h200-pilot" / "campaign.yaml"))
    digest = hashlib.sha256("\n".join(run.run_id for run in runs).encode()).hexdigest()
    assert digest.startswith("7ca24c8ae93c26cd")  # as commit d37ecf8 ordered them


STUDIES: dict[str, dict[str, Any]] = {
    "big": {"question": "q", "vary": {"batch_size": [1, 2, 4, 8], "precision": ["float32", "float16", "int8"]}},
    "small": {"question": "q", "vary": {"model": ["llama-3.2-1b", "llama-3.2-3b"], "batch_size": [16, 32]}},
    "anchors": {"question": "q", "settings": [{}, {"batch_size": 64}], "every_portion": True},
}


def _portioned(**changes: Any) -> list[Run]:
    return expand(_campaign(studies=STUDIES, **{"portion_size": 4, "n_cycles": 3, **changes}))


def test_every_portion_is_measured_once_in_every_cycle() -> None:
    visits = [key for key, _ in itertools.groupby((run.portion, run.traversal) for run in _portioned())]
    assert visits == [(portion, traversal) for traversal in (1, 2, 3) for portion in (1, 2, 3, 4)]
    settings = Counter((run.study, run.setting, run.cycle) for run in _portioned())
    assert set(settings.values()) == {1}
    for run in _portioned():
        assert run.anchor or run.cycle == run.traversal
    for _, runs in itertools.groupby(_portioned(), key=lambda run: (run.study, run.setting)):
        assert len({run.portion for run in runs if not run.anchor}) <= 1


def test_every_portion_is_a_thin_version_of_all_studies() -> None:
    for portion in (1, 2, 3, 4):
        runs = [run for run in _portioned() if (run.portion, run.traversal) == (portion, 1) and not run.anchor]
        assert Counter(run.study for run in runs) == {"big": 3, "small": 1}
        assert {run.levels.precision for run in runs if run.study == "big"} == {"float32", "float16", "int8"}


def test_a_study_can_ask_for_a_share_of_every_portion() -> None:
    studies = {**STUDIES, "small": {**STUDIES["small"], "n_per_portion": 2}}
    runs = [run for run in expand(_campaign(studies=studies, portion_size=4)) if run.traversal == 1 and not run.anchor]
    n_small = [sum(run.study == "small" for run in runs if run.portion == portion) for portion in (1, 2, 3, 4)]
    assert sum(n_small) == 4
    assert n_small[0] in (1, 2)
    assert n_small[3] == 0
    assert n_small != [1, 1, 1, 1]


def test_anchors_open_every_visit_and_count_them() -> None:
    visits = [list(runs) for _, runs in itertools.groupby(_portioned(), key=lambda run: (run.portion, run.traversal))]
    assert len(visits) == 12
    for runs in visits:
        number = (runs[0].portion - 1) * 3 + runs[0].traversal  # three cycles
        assert [run.anchor for run in runs] == [True, True, False, False, False, False]
        assert {run.cycle for run in runs if run.anchor} == {number}
    assert anchor_studies(_campaign(studies=STUDIES).campaign) == {"anchors"}


def test_the_order_of_a_portion_is_new_in_every_cycle_and_depends_on_the_seed() -> None:
    def order(traversal: int, seed: int = 1) -> list[str]:
        runs = expand(_campaign(studies=STUDIES, portion_size=16, seed=seed))
        return [run.setting for run in runs if run.traversal == traversal and not run.anchor]

    assert order(1) == order(1)
    assert sorted(order(1)) == sorted(order(2))
    assert len({tuple(order(1)), tuple(order(2)), tuple(order(1, seed=2))}) == 3


@pytest.mark.parametrize("portion_size", [None, 10])
def test_blocks_stay_together_and_change_their_order(portion_size: int | None) -> None:
    study = {"question": "q", "vary": {"model": ["llama-3.2-1b", "llama-3.2-3b"], "batch_size": list(range(1, 11))}}
    first = set()
    for seed in range(12):
        runs = expand(_campaign(studies={"s": study}, block_by=["model"], portion_size=portion_size, seed=seed))
        for _, visit in itertools.groupby(runs, key=lambda run: (run.portion, run.traversal)):
            models = [model for model, _ in itertools.groupby(run.levels.model for run in visit)]
            assert sorted(models) == ["llama-3.2-1b", "llama-3.2-3b"]
            first.add(models[0])
    assert len(first) == 2
    batches = [run.levels.batch_size for run in runs[:5]]
    assert batches != sorted(batches)


def test_settings_that_are_compared_stay_in_one_portion() -> None:
    study = {
        "question": "q",
        "vary": {"batch_size": [1, 2, 4, 8, 16], "launcher": ["fork", "cold"]},
        "together": ["launcher"],
    }
    runs = expand(_campaign(studies={"s": study}, portion_size=3))
    portions: dict[int, set[int]] = {}
    for run in runs:
        portions.setdefault(run.levels.batch_size, set()).add(run.portion)
    assert all(len(found) == 1 for found in portions.values())
    assert len(set.union(*portions.values())) == 3


def test_combinations_can_be_left_out() -> None:
    study = {
        "question": "q",
        "vary": {"parallelism": ["tensor"], "n_gpus": [2, 3, 4], "precision": ["float16", "int8"]},
        "leave_out": [{"n_gpus": [3]}, {"parallelism": ["tensor", "replicas"], "precision": ["int8", "int4"]}],
    }
    runs = expand(_campaign(studies={"s": study}))
    assert {(run.levels.n_gpus, run.levels.precision) for run in runs} == {(2, "float16"), (4, "float16")}


@pytest.mark.parametrize(
    ("leave_out", "words"),
    [
        ([{"batch_size": [3]}], "studies.s.leave_out: no combination has {'batch_size': [3]}. Expected: levels that"),
        ([{"attention": ["sdpa_no_cudnn"]}], "studies.s.leave_out: it leaves out every combination."),
    ],
)
def test_leaving_out_nothing_or_everything_is_refused(leave_out: list[dict[str, Any]], words: str) -> None:
    assert words in _refusal(vary={"batch_size": [1, 2]}, leave_out=leave_out)


def test_a_fraction_is_measured_instead_of_all_combinations() -> None:
    vary = {"batch_size": [1, 2, 4, 8], "precision": ["float32", "float16"], "n_input_tokens": [64, 128]}
    study = {"question": "q", "vary": vary, "fraction": {"n_settings": 8, "interactions": False}}
    runs = expand(_campaign(studies={"s": study}))
    assert len(runs) == 8 * 2
    ((name, part, found),) = fractions(_campaign(studies={"s": study}))
    assert (name, found.n_candidates, found.n_parameters) == ("s", 16, 6)
    assert 0.95 < found.d_efficiency < 1 + 1e-9  # 1 is possible; an exchange may end a little before
    kept = {"s": {**study, "fraction": {**study["fraction"], "chosen": part.chosen}}}  # type: ignore[dict-item]
    assert [run.run_id for run in expand(_campaign(studies=kept))] == [run.run_id for run in runs]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"n_settings": 5}, "studies.s.fraction.n_settings: 5 of 8 combinations. Expected: from 8"),
        ({"n_settings": 2, "chosen": [0, 8]}, "chosen names combination 8. Expected: one of the study's 8"),
    ],
)
def test_an_impossible_fraction(part: dict[str, Any], words: str) -> None:
    assert words in _refusal(vary={"batch_size": [1, 2, 4, 8], "precision": ["float32", "float16"]}, fraction=part)


def test_tf32_on_a_cpu() -> None:
    study = {"question": "q", "vary": {"precision": ["tf32"]}}
    with pytest.raises(DesignError, match=r"studies\.s: precision tf32 with measurement\.device: cpu"):
        expand(_campaign(studies={"s": study}, measurement={"device": "cpu"}))
    assert len(expand(_campaign(studies={"s": study}, measurement={"device": "gpu"}))) == 2


# --- the wide campaign against the published tables ----------------------------------------------

PRECISIONS = {"none": "float16", "4bit": "int4", "8bit": "int8"}


@pytest.fixture(scope="module")
def h200() -> list[Run]:
    path = ROOT / "config" / "campaigns" / "h200.yaml"
    return expand(resolve(read_campaign(path), MODELS, str(path)))


def _published(name: str) -> list[dict[str, str]]:
    with (PUBLISHED / name).open() as file:
        return list(csv.DictReader(file))


def _levels(runs: list[Run], study: str) -> dict[str, list[Setting]]:
    """Settings of a study by model; the models have the same ones unless they are a fraction."""
    found: dict[str, list[Setting]] = {}
    for run in runs:
        if run.study == study and run.traversal == 1:
            found.setdefault(run.levels.model, []).append(run.levels)
    assert sorted(found) == ["llama-3.2-1b", "llama-3.2-3b"]
    return found


def _number(text: str) -> float | None:
    return float(text) if text else None


def test_the_wide_campaign_has_what_the_issue_asks_for(h200: list[Run]) -> None:
    n = Counter(run.study for run in h200 if run.cycle == 1)
    assert (n["batching"], n["parallelism"], n["traffic"], n["grid"], n["lengths"]) == (70, 32, 52, 192, 4)
    assert (n["scenarios_text"], n["scenarios_code"], n["anchors"], n["interference"]) == (14, 14, 3, 8)
    early = {run.study for run in h200 if run.portion <= 3}
    assert early == {run.study for run in h200}


def test_decoding_keeps_every_published_level_and_invents_none(h200: list[Run]) -> None:
    published: set[tuple[str, float | None, float | None, float | None]] = set()
    for row in _published("baker_decoder_grid.csv"):
        temperature = float(row["temperature"])
        if temperature == 0:
            published.add(("greedy", None, None, None))
        else:  # the code samples, whatever the mode is called
            mode = "multinomial" if row["decoding_mode"] == "greedy" else row["decoding_mode"]
            published.add((mode, temperature, _number(row["top_k"]), _number(row["top_p"])))
    assert len(published) == 120
    ours = {
        (levels.decoding, levels.sampling_temperature, levels.top_k, levels.top_p)
        for settings in _levels(h200, "decoding").values()
        for levels in settings
    }
    assert ours <= published
    for column in range(4):
        assert {row[column] for row in ours} == {row[column] for row in published}


@pytest.mark.parametrize("batch_size", [8, 32])
def test_traffic_has_the_published_levels_row_by_row(h200: list[Run], batch_size: int) -> None:
    published = Counter(
        (_number(row["delay_min_s"]), _number(row["delay_max_s"]), *map(_number, burst), "batch")
        for row in _published("baker_grid_latency_levels.csv")
        for burst in [(row["burst_interval_s"], row["burst_size_batches"])]
    )
    constant = Counter((*level[:4], "query") for level in published if level[0] is not None and level[2] is None)
    for settings in _levels(h200, "traffic").values():
        ours = Counter(
            (s.delay_min_s, s.delay_max_s, s.burst_interval_s, s.burst_size, s.delay_every)
            for s in settings
            if s.batch_size == batch_size
        )
        assert ours == published + constant


@pytest.mark.parametrize("version", ["tex", "code"])
def test_scenarios_are_the_published_ones_row_by_row(h200: list[Run], version: str) -> None:
    study = {"tex": "scenarios_text", "code": "scenarios_code"}[version]
    published = Counter(_scenario(row, version) for row in _published(f"baker_scenarios_{version}.csv"))
    assert sum(published.values()) == 7
    for settings in _levels(h200, study).values():
        ours = Counter(
            (
                *(s.batch_size, s.precision, s.decoding, s.top_k or s.top_p, s.sampling_temperature),
                *(s.delay_min_s, s.delay_max_s, s.burst_interval_s, s.burst_size, s.delay_every),
                *(s.parallelism, s.n_gpus),
            )
            for s in settings
        )
        assert ours == published


def _scenario(row: dict[str, str], version: str) -> tuple[object, ...]:
    n = int(row["num_processes"])
    decoding, temperature = row["decoding"], None
    if "samples" in row["decoding_param"]:
        decoding, temperature = "multinomial", 1.0
    _, equals, level = row["decoding_param"].partition("=")
    several = "replicas" if version == "tex" else "replicas_duplicated"
    delayed = "query" if version == "tex" and row["latency_sim"] == "1" else "batch"
    precision = "float32" if row["precision"] == "float32" else PRECISIONS[row["quantisation"]]
    return (
        *(int(row["batch_size"]), precision, decoding, float(level) if equals else None, temperature),
        *(_number(row[key]) for key in ("delay_min_s", "delay_max_s", "burst_interval_s", "burst_size")),
        delayed,
        *((several, n) if n > 1 else ("none", 1)),
    )


def test_the_grids_fraction_is_a_part_of_the_published_grid(h200: list[Run], thesis: ResolvedCampaign) -> None:
    whole = {run.setting for run in expand(thesis)}
    part = {run.setting for run in h200 if run.study == "grid"}
    assert len(part) == 192
    assert part <= whole


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
        ({"precision": ["fp16"]}, "found 'fp16'. Known: bfloat16, float16, float32, float8, int4, int8, tf32."),
        ({"batch_size": ["many"]}, "found 'many'. Expected: a whole number."),
        ({"batch_size": [1.5]}, "found 1.5. Expected: a whole number."),
        ({"top_p": [0.9]}, "studies.s: impossible setting: decoding 'greedy' with top_p=0.9"),
        (
            {"n_input_tokens": [131072]},
            "n_input_tokens + n_output_tokens = 131200 do not fit llama-3.2-1b. Expected: at most 131072",
        ),
        (
            {"engine": ["vllm"], "kv_cache_tokens": [200]},
            "= 256 do not fit llama-3.2-1b and kv_cache_tokens=200. Expected: at most 200 tokens",
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
