"""The design: which runs a campaign consists of, and in what order they are measured."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from inference_energy.config import FIRST_FACTORS, Campaign, Fraction, ResolvedCampaign, Setting, Study
from inference_energy.errors import DesignError
from inference_energy.factors import WORKLOAD_FACTORS
from inference_energy.lengths import longest
from inference_energy.validation import canonical_json, explain

if TYPE_CHECKING:
    from inference_energy.fraction import Efficiency

_SHORT = {
    "float32": "fp32",
    "tf32": "tf32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float8": "fp8",
    "int8": "int8",
    "int4": "int4",
}
#: Runs that one engine serves at most: a process that is lost takes no more with it, and several GPUs share the work.
N_SHARED_MAX = 16


@dataclass(frozen=True)
class Run:
    """One setting of one study in one cycle.

    Attributes
    ----------
    cycle : int
        Which measurement of the setting it is, from 1.
    order : int
        Place in the order of measuring, from 0.
    portion, traversal : int
        Which portion of the campaign it belongs to, and to which of the campaign's cycles; both from 1.
        `traversal` is `cycle`, but for anchors, which are measured in every portion of every cycle.
    anchor : bool
        Whether its study is measured anew in every portion.
    """

    campaign: str
    study: str
    setting: str
    cycle: int
    order: int
    levels: Setting
    portion: int = 1
    traversal: int = 1
    anchor: bool = False

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


@dataclass(frozen=True)
class _Planned:
    """A setting of a study."""

    study: str
    identity: str
    levels: Setting


def expand(resolved: ResolvedCampaign, where: str = "") -> list[Run]:
    """Every run of a campaign in the order of measuring.

    Cycle by cycle, and in each cycle portion by portion: a campaign that ends early has thin versions
    of all studies. Within a portion the order is shuffled with the campaign's seed (blocks,
    and runs within blocks), anew for each cycle, so that a slow drift of the machine does not look
    like the effect of a factor. Anchors come first.

    Raises
    ------
    DesignError
        If a level or a combination is impossible; names study, levels and reason.
    """
    campaign = resolved.campaign
    where = where or f"campaign {campaign.name}"
    anchors: list[_Planned] = []
    others: dict[str, list[_Planned]] = {}
    for name, study in campaign.studies.items():
        settings = _settings(resolved, name, where)
        if study.every_portion:
            anchors += settings
        else:
            others[name] = settings
    runs: list[Run] = []
    portions = _portions(others, campaign)
    for traversal in range(1, campaign.n_cycles + 1):
        for portion, settings in enumerate(portions, start=1):
            part = "" if campaign.portion_size is None else f"/{portion}"
            rng = random.Random(f"{campaign.seed}{part}/{traversal}")
            ordered = _in_blocks(settings, campaign.block_by, rng)
            first = rng.sample(anchors, len(anchors))
            nth_visit = (portion - 1) * campaign.n_cycles + traversal
            for one, anchor in [*((one, True) for one in first), *((one, False) for one in ordered)]:
                cycle = nth_visit if anchor else traversal
                place = (len(runs), one.levels, portion, traversal, anchor)
                runs.append(Run(campaign.name, one.study, one.identity, cycle, *place))
    return runs


def anchor_studies(campaign: Campaign) -> frozenset[str]:
    """Studies that are measured anew in every portion; their cycles may follow one another at once."""
    return frozenset(name for name, study in campaign.studies.items() if study.every_portion)


def fractions(resolved: ResolvedCampaign, where: str = "") -> list[tuple[str, Fraction, Efficiency]]:
    """How good the campaign's fractions are.

    Returns
    -------
    list of (str, Fraction, Efficiency)
        Study, the fraction with its `chosen` filled in, and what it can estimate.
    """
    from inference_energy import fraction

    found = []
    for name, study in resolved.campaign.studies.items():
        if study.fraction is not None:
            candidates = _candidates(resolved, name, where or f"campaign {resolved.campaign.name}")
            rows = fraction.rows_of([one.levels.model_dump() for one in candidates])
            chosen = _chosen(candidates, study.fraction, resolved.campaign.seed, where, name)
            filled = study.fraction.model_copy(update={"chosen": chosen})
            found.append((name, filled, fraction.describe(rows, tuple(chosen), study.fraction.interactions)))
    return found


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


def engine_of(run: Run) -> Hashable:
    """What runs of one engine have in common; None where a run has an engine of its own."""
    if run.levels.engine_process == "own":
        return None
    fixed = run.levels.model_dump(exclude=set(WORKLOAD_FACTORS))
    return tuple(sorted((name, str(level)) for name, level in fixed.items()))


def served_together(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that share an engine, each with others of `runs`, at most :data:`N_SHARED_MAX` to an engine.

    Every run of one cycle that asks for a shared engine is in exactly one list, in the order of measuring.
    Lists are about equally long.
    """
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        engine = engine_of(run)
        if engine is not None:
            groups.setdefault((run.traversal, engine), []).append(run)
    found = []
    for group in groups.values():
        n_lists = -(-len(group) // N_SHARED_MAX)
        edges = [len(group) * place // n_lists for place in range(n_lists + 1)]
        found += [group[first:last] for first, last in itertools.pairwise(edges)]
    return found


# --- settings of a study -------------------------------------------------------------------------


def _settings(resolved: ResolvedCampaign, study: str, where: str) -> list[_Planned]:
    """The settings of a study that are measured, in the order of the configuration."""
    candidates = _candidates(resolved, study, where)
    part = resolved.campaign.studies[study].fraction
    if part is None:
        return candidates
    return [candidates[place] for place in _chosen(candidates, part, resolved.campaign.seed, where, study)]


def _candidates(resolved: ResolvedCampaign, study: str, where: str) -> list[_Planned]:
    """Every different combination of a study, less what it leaves out."""
    found: dict[str, _Planned] = {}
    source = resolved.campaign.studies[study]
    unused = set(range(len(source.leave_out)))
    for levels in _combinations(resolved.campaign.base, source):
        matching = [n for n, entry in enumerate(source.leave_out) if _matches(levels, entry)]
        unused.difference_update(matching)
        if not matching:
            setting = _checked(levels, resolved, where, study)
            identity = setting_id(setting)
            found.setdefault(identity, _Planned(study, identity, setting))
    if unused or not found:
        raise DesignError(
            f"{where}: studies.{study}.leave_out",
            f"no combination has {source.leave_out[min(unused)]}" if unused else "it leaves out every combination",
            "levels that the study combines",
            "Correct or drop the entry",
        )
    return list(found.values())


def _combinations(base: dict[str, object], study: Study) -> Iterator[dict[str, object]]:
    for by_hand in study.settings or [{}]:
        for levels in itertools.product(*study.vary.values()):
            yield {**base, **study.fixed, **by_hand, **dict(zip(study.vary, levels, strict=True))}


def _matches(levels: dict[str, object], entry: dict[str, list[object]]) -> bool:
    return all(levels.get(factor, Setting.model_fields[factor].default) in some for factor, some in entry.items())


def _chosen(candidates: Sequence[_Planned], part: Fraction, seed: int, where: str, study: str) -> list[int]:
    """Places of the fraction among `candidates`, ascending."""
    key = f"{where}: studies.{study}.fraction"
    if part.chosen is not None:
        if max(part.chosen) >= len(candidates):
            raise DesignError(
                key,
                f"chosen names combination {max(part.chosen)}",
                f"one of the study's {len(candidates)}, counted from 0",
                "Drop chosen: it is then searched for anew, and `inference-energy plan` prints it",
            )
        return sorted(part.chosen)
    from inference_energy import fraction  # NumPy: only where a fraction is searched for

    rows = fraction.rows_of([one.levels.model_dump() for one in candidates])
    own_seed = seed if part.seed is None else part.seed
    return list(fraction.choose(rows, part.n_settings, own_seed, part.interactions, key))


# --- order ---------------------------------------------------------------------------------------

#: Settings that stay together in one portion; most units are one setting.
_Unit = list[_Planned]


def _portions(studies: dict[str, list[_Planned]], campaign: Campaign) -> list[list[_Planned]]:
    """All settings, cut into portions that are thin versions of all studies."""
    if campaign.portion_size is None:
        return [[one for settings in studies.values() for one in settings]]
    n_portions = sum(map(len, studies.values())) / campaign.portion_size
    placed: list[tuple[float, float, _Unit]] = []
    for name, settings in studies.items():
        study = campaign.studies[name]
        share = study.n_per_portion or len(settings) / n_portions
        rng = random.Random(f"{campaign.seed}/{name}")
        n_before = 0
        for unit in _balanced(_units(settings, study.together), rng):
            placed.append(((n_before + len(unit) / 2) / share, rng.random(), unit))
            n_before += len(unit)
    portions: list[list[_Planned]] = [[]]
    for _, _, unit in sorted(placed, key=lambda each: each[:2]):
        if len(portions[-1]) >= campaign.portion_size:
            portions.append([])
        portions[-1] += unit
    return portions


def _units(settings: Sequence[_Planned], together: Collection[str]) -> list[_Unit]:
    """Settings that differ in the factors `together` only, side by side."""
    units: dict[Hashable, _Unit] = {}
    for one in settings:
        alike = (factor for factor in Setting.model_fields if factor not in together)
        units.setdefault(tuple(getattr(one.levels, factor) for factor in alike), []).append(one)
    return list(units.values())


def _balanced(units: Sequence[_Unit], rng: random.Random) -> list[_Unit]:
    """A sequence of which every beginning has each level about equally often; chance decides between equals."""
    from inference_energy import fraction

    shuffled = rng.sample(list(units), len(units))
    rows = fraction.rows_of([unit[0].levels.model_dump() for unit in shuffled])
    return [shuffled[place] for place in fraction.balanced(rows)]


def _in_blocks(settings: Iterable[_Planned], block_by: Sequence[str], rng: random.Random) -> list[_Planned]:
    """`settings` in random order, those of one block side by side."""
    blocks: dict[Hashable, list[_Planned]] = {}
    for one in settings:
        blocks.setdefault(tuple(getattr(one.levels, factor) for factor in block_by), []).append(one)
    shuffled = list(blocks.values())
    rng.shuffle(shuffled)
    for block in shuffled:
        rng.shuffle(block)
    return [one for block in shuffled for one in block]


# --- what is possible ----------------------------------------------------------------------------


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
    if setting.precision == "tf32" and resolved.campaign.measurement.device == "cpu":
        raise DesignError(
            where,
            "precision tf32 with measurement.device: cpu",
            "a number format that a CPU has: float32, float16, bfloat16, int8 or int4",
            "TF32 exists in the matrix units of NVIDIA GPUs only",
        )
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
    n_context, cache = sum(longest(setting)), setting.kv_cache_tokens
    n_room = min(shape["max_position_embeddings"], cache or n_context)
    if n_context > n_room:
        found = f"n_input_tokens + n_output_tokens = {n_context} do not fit {setting.model}"
        found += f" and kv_cache_tokens={cache}" if cache else ""
        raise DesignError(where, found, f"at most {n_room} tokens of input and output")
    if setting.weights == "hub" and resolved.models[setting.model].hub_name is None:
        raise DesignError(
            where, f"{setting.model} is a shape of our own and has no weights on a hub", "weights: random"
        )
