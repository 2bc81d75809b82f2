"""The design: which runs a campaign consists of, and in what order they are measured."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from inference_energy.config import FIRST_FACTORS, Campaign, ResolvedCampaign, Setting, Study
from inference_energy.errors import DesignError
from inference_energy.validation import canonical_json, explain

_SHORT = {"float32": "fp32", "tf32": "tf32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "int4": "int4"}


@dataclass(frozen=True)
class Run:
    """One setting of one study in one cycle.

    Attributes
    ----------
    order : int
        Place in the order of measuring, from 0; all of cycle 1 precedes cycle 2.
    """

    campaign: str
    study: str
    setting: str
    cycle: int
    order: int
    levels: Setting

    @property
    def run_id(self) -> str:
        """``<study>/<setting>.c<cycle>``: the record's path below ``records/``, less its ending."""
        return f"{self.study}/{self.setting}.c{self.cycle}"


def setting_id(levels: Setting) -> str:
    """A readable and unambiguous name: model, precision, batch size, and a hash of all levels."""
    later = {name: field.default for name, field in Setting.model_fields.items() if name not in FIRST_FACTORS}
    counted = {
        name: level
        for name, level in levels.model_dump(mode="json").items()
        if name not in later or level != later[name]
    }
    digest = hashlib.sha256(canonical_json(counted).encode()).hexdigest()[:8]
    model = re.sub(r"[^a-z0-9.-]", "-", levels.model.lower())
    return f"{model}_{_SHORT[levels.precision]}_b{levels.batch_size}_{digest}"


def expand(resolved: ResolvedCampaign, where: str = "") -> list[Run]:
    """Every run of a campaign in the order of measuring.

    The order within a cycle is shuffled with the campaign's seed, anew for each cycle, so that a
    slow drift of the machine does not look like the effect of a factor.

    Raises
    ------
    DesignError
        If a level or a combination is impossible; names study, levels and reason.
    """
    campaign = resolved.campaign
    where = where or f"campaign {campaign.name}"
    settings: list[tuple[str, str, Setting]] = []
    for study_name, study in campaign.studies.items():
        seen: set[str] = set()
        for levels in _combinations(campaign.base, study):
            setting = _checked(levels, resolved, where, study_name)
            identity = setting_id(setting)
            if identity not in seen:
                seen.add(identity)
                settings.append((study_name, identity, setting))
    runs: list[Run] = []
    for cycle in range(1, campaign.n_cycles + 1):
        shuffled = list(settings)
        random.Random(f"{campaign.seed}/{cycle}").shuffle(shuffled)
        for study_name, identity, setting in shuffled:
            runs.append(Run(campaign.name, study_name, identity, cycle, len(runs), setting))
    return runs


def find(runs: list[Run], run_id: str) -> Run:
    """The run called `run_id`.

    Raises
    ------
    DesignError
        If the design has no such run.
    """
    for run in runs:
        if run.run_id == run_id:
            return run
    raise DesignError(
        "run",
        f"{run_id!r} is not in the design of {len(runs)} runs",
        "<study>/<setting>.c<cycle>",
        "inference-energy plan lists them",
    )


def _combinations(base: dict[str, object], study: Study) -> Iterator[dict[str, object]]:
    for by_hand in study.settings or [{}]:
        for levels in itertools.product(*study.vary.values()):
            yield {**base, **study.fixed, **by_hand, **dict(zip(study.vary, levels, strict=True))}


def _checked(levels: dict[str, object], resolved: ResolvedCampaign, file: str, study: str) -> Setting:
    where = f"{file}: studies.{study}"
    try:
        setting = Setting.model_validate(levels)
    except ValidationError as error:
        first = error.errors()[0]
        found, expected = explain(first)
        if first["type"] == "missing":
            raise DesignError(
                where,
                f"no setting says its {first['loc'][0]}",
                "",
                f"Give {first['loc'][0]} in base, or in fixed or vary of this study",
            ) from error
        key = _key_of(str(first["loc"][0]), resolved.campaign, study) if first["loc"] else f"studies.{study}"
        raise DesignError(
            f"{file}: {key}",
            f"impossible setting: {found}",
            expected,
            "All levels: " + ", ".join(f"{k}={v}" for k, v in levels.items()),
        ) from error
    _fits_its_model(setting, resolved, where)
    return setting


def _key_of(factor: str, campaign: Campaign, study: str) -> str:
    """The key of the configuration that gives `factor` its level in `study`."""
    source = campaign.studies[study]
    if factor in source.vary:
        return f"studies.{study}.vary.{factor}"
    if any(factor in levels for levels in source.settings):
        return f"studies.{study}.settings.{factor}"
    return f"studies.{study}.fixed.{factor}" if factor in source.fixed else f"base.{factor}"


def _fits_its_model(setting: Setting, resolved: ResolvedCampaign, where: str) -> None:
    if setting.model not in resolved.models:
        raise DesignError(
            where,
            f"{setting.model!r} is no model of this campaign",
            f"one of {', '.join(sorted(resolved.models))}",
            "Add it to config/models.yaml",
        )
    shape = resolved.models[setting.model].shape
    if setting.parallelism == "tensor":
        for name in ("num_attention_heads", "num_key_value_heads"):
            if shape[name] % setting.n_gpus:
                heads = name.removeprefix("num_").replace("_", " ")
                raise DesignError(
                    where,
                    f"tensor parallelism over n_gpus={setting.n_gpus} GPUs cannot split the"
                    f" {shape[name]} {heads} of {setting.model}",
                    f"a divisor of {shape[name]}",
                    "Change n_gpus, or use replicas",
                )
    longest = setting.n_input_tokens + setting.n_output_tokens
    if longest > shape["max_position_embeddings"]:
        raise DesignError(
            where,
            f"n_input_tokens + n_output_tokens = {longest} do not fit {setting.model}",
            f"at most {shape['max_position_embeddings']} tokens of input and output",
        )
    if setting.weights == "hub" and resolved.models[setting.model].hub_name is None:
        raise DesignError(
            where, f"{setting.model} is a shape of our own and has no weights on a hub", "weights: random"
        )
