"""The configuration refuses what it does not know, and says where, what, and what instead."""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from inference_energy.analyse.published_appliances import last_energy_kwh
from inference_energy.config import (
    FACTORS,
    Analysis,
    Campaign,
    CampaignChoice,
    Fraction,
    Measurement,
    Report,
    Setting,
    StartGate,
    Study,
    StudyConfig,
    WarmUp,
    json_schema,
    load,
    merge,
    read_campaign,
    read_models,
    read_resolved,
    resolve,
)
from inference_energy.errors import ConfigError
from inference_energy.facts import ContextFacts, HardwareFacts, ModelFacts, read_context, read_hardware
from inference_energy.validation import read_yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
CAMPAIGNS = sorted((CONFIG / "campaigns").glob("*.yaml"))
LOCAL = yaml.safe_load((CONFIG / "campaigns" / "local.yaml").read_text())


def _broken(tmp_path: Path, change: Callable[[dict[str, Any]], object], name: str = "local.yaml") -> str:
    """The error's paragraph for the local campaign after `change`, with the folder cut off."""
    content = copy.deepcopy(LOCAL)
    change(content["campaign"])
    path = tmp_path / name
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError) as caught:
        resolve(read_campaign(path), read_models(CONFIG / "models.yaml"), str(path))
    return str(caught.value).replace(f"{tmp_path}/", "")


# --- what the project ships ----------------------------------------------------------------------


def test_the_default_configuration_is_valid_and_its_keys_exist() -> None:
    config = load(read_yaml(CONFIG / "default.yaml"))
    context = read_context(CONFIG / "context.yaml")
    assert config.report.grid in context.carbon_g_per_kwh
    assert config.report.price in context.price_eur_per_kwh
    assert config.report.pue in context.pue
    assert {choice.name for choice in config.campaigns} <= {path.stem for path in CAMPAIGNS}


@pytest.mark.parametrize("path", CAMPAIGNS, ids=lambda path: path.stem)
def test_a_shipped_campaign_is_named_as_its_file(path: Path) -> None:
    campaign = read_campaign(path)
    assert campaign.name == path.stem
    resolve(campaign, read_models(CONFIG / "models.yaml"), str(path))


def test_facts_have_sources_and_plausible_values() -> None:
    context, hardware = read_context(CONFIG / "context.yaml"), read_hardware(CONFIG / "hardware.yaml")
    for gpu in hardware.values():
        assert 50 <= gpu.power_limit_w.value <= 1500
        assert 1e11 <= gpu.memory_bandwidth_bytes_per_s.value <= 1e13
        assert 1e10 <= gpu.memory_bytes.value <= 1e12
        rates = {name: fact.value for name, fact in gpu.peak_flop_per_s.items()}
        assert rates["float32"] < rates["float16"] < 2.6e15
        assert rates.get("int8", 2 * rates["float16"]) >= 2 * rates["float16"] * 0.99
    assert all(10 < fact.value < 1200 for fact in context.carbon_g_per_kwh.values())
    assert all(1 <= fact.value < 3 for fact in context.pue.values())
    for facts in (context.carbon_g_per_kwh, context.price_eur_per_kwh, context.pue, context.appliance_energy_j):
        assert all(fact.source and 2000 <= fact.year <= 2100 for fact in facts.values())


def test_context_repeats_the_published_tables() -> None:
    import pandas as pd

    context = read_context(CONFIG / "context.yaml")
    grids = pd.read_csv(ROOT / "resources" / "published" / "wetzel_carbon_intensity.csv")
    expected = dict(zip(grids["country"], grids["carbon_intensity_g_per_kwh"], strict=True))
    assert {name: fact.value for name, fact in context.carbon_g_per_kwh.items()} == expected
    appliances = pd.read_csv(ROOT / "resources" / "published" / "baker_appliance_energy.csv")
    corrected = appliances["appliance"].isin(["MacBook Pro 2023 (M3)", "Electric Kettle"])
    derived = appliances["justification_as_printed"].map(last_energy_kwh)
    used = appliances["energy_kwh"].mask(corrected, derived) * 3.6e6
    baker = {fact.value: fact.source for fact in context.appliance_energy_j.values() if "Baker" in fact.source}
    assert sorted(baker) == pytest.approx(sorted(used), rel=1e-12)
    assert sum(source.startswith("Corrected") for source in baker.values()) == 2


def test_the_schema_file_is_up_to_date() -> None:
    expected = json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"
    found = (CONFIG / "schema.json").read_text(encoding="utf-8")
    difference = "".join(
        difflib.unified_diff(
            found.splitlines(True), expected.splitlines(True), "config/schema.json", "config.json_schema()"
        )
    )
    assert not difference, f"{difference}\nMake it anew: inference-energy schema > config/schema.json"


@pytest.mark.parametrize("path", [CONFIG / "default.yaml", *CAMPAIGNS], ids=lambda path: path.stem)
def test_shipped_files_pass_the_schema(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())


def test_the_schema_refuses_a_misspelt_factor() -> None:
    content = copy.deepcopy(LOCAL)
    content["campaign"]["base"]["precison"] = "float16"
    with pytest.raises(jsonschema.ValidationError, match="precison"):
        jsonschema.validate(content, json_schema())


@pytest.mark.parametrize(
    "model",
    [
        Setting,
        Fraction,
        Study,
        StartGate,
        WarmUp,
        Measurement,
        Campaign,
        Analysis,
        Report,
        CampaignChoice,
        StudyConfig,
        HardwareFacts,
        ContextFacts,
        ModelFacts,
    ],
)
def test_every_key_says_what_it_is(model: type[BaseModel]) -> None:
    sections = {"studies", "measurement", "analysis", "report", "model"}  # described by their own keys
    silent = [name for name, field in model.model_fields.items() if not field.description and name not in sections]
    assert silent == []


# --- bad input: one paragraph each ---------------------------------------------------------------


def test_a_misspelt_key(tmp_path: Path) -> None:
    def change(campaign: dict[str, Any]) -> None:
        campaign["measurement"]["n_window"] = 5

    assert _broken(tmp_path, change).startswith(
        "local.yaml: measurement.n_window: unknown key. Known: codecarbon_country, counter_power_tolerance_fraction,"
    )
    assert _broken(tmp_path, change).endswith("Did you mean n_windows?")


def test_a_misspelt_key_of_a_study(tmp_path: Path) -> None:
    def change(campaign: dict[str, Any]) -> None:
        campaign["studies"]["batching"]["varry"] = {}

    assert _broken(tmp_path, change) == (
        "local.yaml: studies.batching.varry: unknown key. Known: every_portion, fixed, fraction, leave_out,"
        " n_per_portion, question, settings, together, vary. Did you mean vary?"
    )


def test_a_misspelt_factor(tmp_path: Path) -> None:
    def change(campaign: dict[str, Any]) -> None:
        campaign["studies"]["batching"]["vary"]["batch_sise"] = [1]

    assert _broken(tmp_path, change) == (
        "local.yaml: studies.batching.vary.batch_sise is not a factor. Known: "
        + ", ".join(sorted(FACTORS))
        + ". Did you mean batch_size?"
    )


@pytest.mark.parametrize(("place", "key"), [("base", "base.modle"), ("fixed", "studies.batching.fixed.modle")])
def test_a_misspelt_factor_elsewhere(tmp_path: Path, place: str, key: str) -> None:
    def change(campaign: dict[str, Any]) -> None:
        holder = campaign if place == "base" else campaign["studies"]["batching"]
        holder.setdefault(place, {})["modle"] = "tiny-llama"

    assert _broken(tmp_path, change).startswith(f"local.yaml: {key} is not a factor. Known: ")


def test_an_unknown_model(tmp_path: Path) -> None:
    def change(campaign: dict[str, Any]) -> None:
        campaign["studies"]["batching"]["vary"]["model"] = ["llama-3.2-1b", "llama-3.2-1c"]

    known = ", ".join(sorted(yaml.safe_load((CONFIG / "models.yaml").read_text())))
    assert ", llama-3.2-1b, llama-3.2-3b, " in known
    assert _broken(tmp_path, change) == (
        "local.yaml: studies.batching.vary.model: 'llama-3.2-1c' is no model of config/models.yaml."
        f" Known: {known}. Did you mean llama-3.2-1b?"
    )


def test_an_unknown_model_in_the_base(tmp_path: Path) -> None:
    def change(campaign: dict[str, Any]) -> None:
        campaign["base"]["model"] = "gpt-2"

    assert _broken(tmp_path, change).startswith("local.yaml: base.model: 'gpt-2' is no model of config/models.yaml.")


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        (None, "n_cycles", 1, "n_cycles: found 1. Expected: at least 2."),
        (None, "block_by", ["modle"], "block_by.0.modle is not a factor."),
        (None, "portion_size", 0, "portion_size: found 0. Expected: at least 1."),
        (None, "seed", "dice", "seed: found 'dice'. Expected: a whole number."),
        (None, "name", "My Campaign", "name: found 'My Campaign'. Expected: text that matches"),
        (None, "studies", {}, "studies: found a mapping. Expected: at least 1 of them."),
        (None, "studies", [1], "studies: found a list. Expected: a mapping of keys to values."),
        ("measurement", "n_windows", 4, "measurement.n_windows: found 4. Expected: at least 5."),
        ("measurement", "idle_s", 0, "measurement.idle_s: found 0. Expected: a number above 0."),
        ("measurement", "idle_s", float("nan"), "measurement.idle_s: found nan. Expected: a finite number."),
        ("measurement", "device", "gpus", "measurement.device: found 'gpus'. Known: auto, cpu, gpu. Did you mean gpu?"),
        ("measurement", "source", "replay", "measurement: replay_of names the archived campaign"),
    ],
)
def test_an_impossible_value(tmp_path: Path, section: str | None, key: str, value: object, words: str) -> None:
    def change(campaign: dict[str, Any]) -> None:
        (campaign if section is None else campaign[section])[key] = value

    assert words in _broken(tmp_path, change)


def test_a_missing_key_and_the_number_of_further_problems(tmp_path: Path) -> None:
    def change(campaign: dict[str, Any]) -> None:
        del campaign["title"]
        campaign["n_cycles"] = 0

    assert _broken(tmp_path, change) == (
        "local.yaml: title: this key is missing. Expected: a value. 1 more problem after this one."
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("campaign: [", "not readable as YAML"),
        ("campaigns: {}", "its top-level keys are: campaigns. Expected: one key, campaign."),
        ("", "the file holds nothing. Expected: a mapping of keys to values."),
        ("- a", "the file holds a list. Expected: a mapping of keys to values."),
        ("campaign: {seed: 1, seed: 2}", "the key 'seed' stands twice"),
    ],
)
def test_a_file_that_is_no_campaign(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_campaign(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: no such file\. Expected: a YAML file\."):
        read_campaign(tmp_path / "no.yaml")


def test_a_fact_must_be_a_number(tmp_path: Path) -> None:
    text = (CONFIG / "hardware.yaml").read_text()
    path = tmp_path / "hardware.yaml"
    path.write_text(text.replace("{value: 700, unit: W", "{value: plenty, unit: W", 1))
    with pytest.raises(ConfigError, match=r"hardware\.yaml: NVIDIA H200: power_limit_w\.value"):
        read_hardware(path)
    path.write_text(text.replace("{value: 4.8e+12,", "{value: 48e11,", 1))  # YAML reads 48e11 as text
    assert read_hardware(path)["NVIDIA H200"].memory_bandwidth_bytes_per_s.value == 4.8e12


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ({"batch_size": 0}, "greater than or equal to 1"),
        ({"decoding": "top_k"}, "give top_k if and only if decoding is 'top_k'"),
        ({"top_p": 0.9}, "give top_p if and only if decoding is 'top_p'"),
        ({"sampling_temperature": 0.5}, "greedy decoding does not sample"),
        ({"n_gpus": 2}, "several need one of replicas"),
        ({"parallelism": "tensor"}, "one GPU has no parallelism"),
        ({"traffic": "constant"}, "give delay_min_s and delay_max_s"),
        ({"traffic": "constant", "delay_min_s": 0.2, "delay_max_s": 0.1}, "delay_max_s must be at least delay_min_s"),
        ({"traffic": "burst", "delay_min_s": 0.1, "delay_max_s": 0.2}, "needs burst_interval_s and burst_size"),
        ({"burst_size": 2}, "needs burst_interval_s and burst_size"),
        ({"n_prompts": 4, "batch_size": 8}, "n_prompts=4 is smaller than batch_size=8"),
        ({"n_prompts": 15, "parallelism": "replicas", "n_gpus": 2}, "n_prompts=15 is no multiple of 2 processes"),
        ({"parallelism": "tensor", "n_gpus": 2, "precision": "int4"}, "packed weights cannot be split over GPUs"),
        ({"delay_every": "query"}, "without traffic: no delay precedes anything"),
    ],
)
def test_levels_that_do_not_fit_together(levels: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="1 validation error") as caught:
        Setting.model_validate({"model": "tiny-llama", **levels})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ({}, (8, 8, 8, 1)),
        ({"n_prompts": 128}, (128, 128, 128, 16)),
        ({"n_prompts": 20}, (20, 20, 20, 3)),
        ({"n_prompts": 128, "parallelism": "replicas", "n_gpus": 4}, (32, 128, 128, 4)),
        ({"n_prompts": 128, "parallelism": "replicas_duplicated", "n_gpus": 4}, (128, 128, 512, 16)),
        ({"n_prompts": 128, "parallelism": "tensor", "n_gpus": 4}, (128, 128, 128, 16)),
        ({"parallelism": "replicas", "n_gpus": 2}, (8, 16, 16, 1)),
    ],
)
def test_a_pass_is_all_prompts_once(levels: dict[str, Any], expected: tuple[int, ...]) -> None:
    setting = Setting(model="m", batch_size=8, **levels)
    assert expected == (
        setting.n_prompts_per_process,
        setting.n_prompts_per_pass,
        setting.n_prompts_answered_per_pass,
        setting.n_batches_per_pass,
    )


# --- merging and resolving -----------------------------------------------------------------------


def test_merge_goes_mapping_by_mapping() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": [1, 2]}
    assert merge(base, {"a": {"b": 3}, "d": [4]}) == {"a": {"b": 3, "c": 2}, "d": [4]}
    assert base == {"a": {"b": 1, "c": 2}, "d": [1, 2]}


def test_a_campaign_given_directly() -> None:
    merged = merge(read_yaml(CONFIG / "default.yaml"), read_yaml(CONFIG / "campaigns" / "thesis.yaml"))
    config = load(merged)
    assert config.campaign is not None
    assert config.campaign.name == "thesis"


def test_an_unknown_top_level_key() -> None:
    merged = {**read_yaml(CONFIG / "default.yaml"), "reslts_dir": "x"}
    with pytest.raises(ConfigError, match=r"configuration: reslts_dir: unknown key.*Did you mean results_dir"):
        load(merged)


def test_a_resolved_campaign_reads_back_and_keeps_its_hash(tmp_path: Path) -> None:
    resolved = resolve(read_campaign(CONFIG / "campaigns" / "local.yaml"), read_models(CONFIG / "models.yaml"), "x")
    path = tmp_path / "campaign.yaml"
    path.write_text(resolved.dump())
    again = read_resolved(path)
    assert again == resolved
    assert again.sha256() == resolved.sha256()
    other = resolved.model_copy(update={"campaign": resolved.campaign.model_copy(update={"seed": 1})})
    assert other.sha256() != resolved.sha256()
    assert set(resolved.models) == {"tiny-llama"}


def test_models_are_found_wherever_a_setting_names_them() -> None:
    base = {"name": "c", "title": "t", "description": "d", "seed": 1, "base": {"model": "tiny-llama"}}
    study = {"question": "q", "settings": [{"model": "llama-3.2-1b"}, {"batch_size": 2}]}
    campaign = Campaign.model_validate({**base, "studies": {"s": study}})
    resolved = resolve(campaign, read_models(CONFIG / "models.yaml"), "x")
    assert set(resolved.models) == {"llama-3.2-1b", "tiny-llama"}  # the second setting takes the base's
    overridden = {"question": "q", "vary": {"model": ["llama-3.2-3b"]}}
    campaign = Campaign.model_validate({**base, "studies": {"s": overridden}})
    assert set(resolve(campaign, read_models(CONFIG / "models.yaml"), "x").models) == {"llama-3.2-3b"}


def test_sections_are_closed_and_immutable() -> None:
    config = load(read_yaml(CONFIG / "default.yaml"))
    assert isinstance(config, StudyConfig)
    with pytest.raises(ValueError, match="frozen"):
        config.results_dir = "elsewhere"  # type: ignore[misc]
