"""Which choice saves how much: one table over the pages on engines, phases, serving, lengths and size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from inference_energy.models.arrivals import SPREAD
from inference_energy.models.engines import EAGER, ENERGY, GRAPHS, MANY, ONE, TRANSFORMERS
from inference_energy.models.phases import BY_LENGTH, GENERATION, PER_OUTPUT
from inference_energy.models.sizes import (
    ENERGY_RATIO,
    FEWER_GPUS,
    MACHINE,
    PRECISION_PART,
    SMALLER_MODEL,
    TAKING_PART,
)
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    Prose,
    fold,
    known,
    level,
    listed,
    not_measured,
    number,
    percent,
    span,
    table,
)

#: The model that most studies measured: choices are shown for it, so that they can be compared.
MODEL = "llama-3.1-8b"
TABLES = ("engine_comparison", "length_ratios", "padding", "quantisation", "right_size", "arrival_ratio")
COLUMNS = [
    "decision",
    "choice",
    "model",
    "energy_ratio",
    "energy_ratio_low",
    "energy_ratio_high",
    "per",
    "page",
    "figure",
]
_SAME = 0.02  # a ratio so near to 1 saves nothing


@dataclass(frozen=True)
class _Choice:
    """A choice, and the row of a table that says what it saves."""

    decision: str
    words: str  # what is chosen, not what instead; {names} are the row's
    table: str
    where: str
    page: str
    figure: str
    inverse: bool = False  # whether the table's ratio is the other way round
    per: str = "output token"

    @property
    def column(self) -> str:
        """Where the ratio stands."""
        names = {"length_ratios": "level_over_baseline_ratio", "arrival_ratio": "energy_ratio"}
        return names.get(self.table, "estimate")


_SIZE, _LENGTHS = "19_size", "18_lengths"
_OF_MACHINES = f"quantity == '{ENERGY_RATIO}' and choice == '{FEWER_GPUS}' and n_gpus == 1"
_OF_FORMATS = f"quantity == '{ENERGY_RATIO}' and part == '{PRECISION_PART}' and n_gpus_to == 1 and batch_size > 0"

CHOICES = (
    _Choice(
        "model",
        "{model}, not {over_model}",
        "right_size",
        f"quantity == '{ENERGY_RATIO}' and accounting == '{TAKING_PART}' and choice == '{SMALLER_MODEL}'"
        " and n_gpus == 1 and n_input_tokens == 100 and n_output_tokens == 100",
        _SIZE,
        "size_laws",
    ),
    _Choice(
        "machine",
        "1 GPU, not {n_gpus_over}",
        "right_size",
        f"{_OF_MACHINES} and accounting == '{TAKING_PART}'",
        _SIZE,
        "size_machines",
    ),
    _Choice(
        "machine",
        "1 GPU, not {n_gpus_over}, of a machine of four billed as a whole",
        "right_size",
        f"{_OF_MACHINES} and accounting == '{MACHINE}'",
        _SIZE,
        "size_machines",
    ),
    _Choice(
        "number format",
        "{precision_to}, not {precision_from}, both on one GPU at batch {batch_size}",
        "quantisation",
        _OF_FORMATS,
        _SIZE,
        "size_formats",
    ),
    _Choice(
        "engine",
        "{baseline}, not {engine}, both at batch {batch_size}",
        "engine_comparison",
        f"quantity == '{ENERGY}' and baseline == '{GRAPHS}' and engine in ('{TRANSFORMERS}', '{EAGER}')"
        f" and batch_size == baseline_batch_size and batch_size in ({ONE}, {MANY})",
        "15_engine",
        "engine_ratio",
        inverse=True,
    ),
    _Choice(
        "batch",
        "{level}, not 1",
        "length_ratios",
        "comparison == 'prompts_at_once' and batch_size in (32, 512)",
        _LENGTHS,
        "lengths_at_once",
        per="prompt",
    ),
    _Choice(
        "batch",
        "prompts sorted by length into batches of {batch_size}, not as they come",
        "padding",
        f"quantity == '{PER_OUTPUT}' and phase == '{GENERATION}' and factor == 'batch_order'"
        f" and batch_order == '{BY_LENGTH}' and batch_size == 16",
        "16_phases",
        "padding_sorting",
    ),
    *(
        _Choice(
            "lengths",
            f"{words} ({{baseline}}, not {{level}})",
            "length_ratios",
            f"comparison == '{comparison}'",
            _LENGTHS,
            figure,
            inverse=True,
            per="prompt",
        )
        for words, comparison, figure in (
            ("short answers", "long_answer", "lengths_ratio"),
            ("short prompts", "long_prompt", "lengths_ratio"),
            ("prompts without guidance", "guidance", "lengths_guidance"),
        )
    ),
    _Choice(
        "timing",
        "{baseline}, not {level}",
        "arrival_ratio",
        f"comparison == '{SPREAD}' and scope == 'all'",
        "17_serving",
        "serving_energy",
        inverse=True,
        per="request",
    ),
)


def choice_rows(evidence: Evidence) -> pd.DataFrame:
    """Every choice with its ratio, the one that saves most first; those that were not measured last.

    Returns
    -------
    DataFrame
        Columns decision, choice (words), model, ``energy_ratio`` with ``_low`` and ``_high`` (with the choice over
        without it), per (what energy is of), page and figure.
    """
    rows = pd.DataFrame([row for choice in CHOICES for row in _rows(evidence, choice)], columns=COLUMNS)
    return rows.sort_values("energy_ratio", kind="stable").reset_index(drop=True)


def choices(evidence: Evidence) -> Finding:
    """Which choices save most."""
    rows = choice_rows(evidence).dropna(subset=["energy_ratio"])
    if rows.empty:
        return not_measured("a choice of engine, batch, lengths, size or timing, all else equal")
    sure = rows[rows["energy_ratio_high"] < 1 - _SAME]
    best = (sure if len(sure) else rows).drop_duplicates("decision").head(3)
    said = [f"“{row['choice']}” ({_moved(row['energy_ratio'])})" for _, row in best.iterrows()]
    none = rows[(rows["energy_ratio_low"] <= 1) & (rows["energy_ratio_high"] >= 1)]
    idle = f" Not shown to change anything: {listed([f'“{words}”' for words in none['choice']])}." if len(none) else ""
    if rows["energy_ratio_low"].isna().all():
        idle += " No ratio has an interval: nothing was measured twice."
    lacking = sorted(set(choice_rows(evidence)["decision"]) - set(rows["decision"]))
    return Finding(
        f"Of what can be decided here, most is saved by {listed(said)}.",
        "Ask in this order: does a smaller model do; does it fit fewer GPUs, with fewer bits if need be; which engine;"
        " how many prompts at once, and when; how long prompts and answers must be. Each ratio holds all else equal at"
        " one point, for one model where it was measured: ratios of several choices do not simply multiply, and those"
        f" of model, format and lengths may change the answers' quality, which random weights cannot show.{idle}"
        + (f" Not measured in this campaign: {listed(lacking)}." if lacking else ""),
    )


def choices_table(evidence: Evidence) -> Prose:
    """Every choice with its ratio, its interval and the page that shows it."""
    rows = choice_rows(evidence).drop_duplicates(["decision", "choice", "figure"])  # some lack all their choices
    lines = [
        {
            "decision": row["decision"],
            "choice": "–" if pd.isna(row["choice"]) else row["choice"],
            "model": "–" if pd.isna(row["model"]) else row["model"],
            "energy": f"{_words(row)} per {row['per']}" if known(row["energy_ratio"]) else "not measured",
            "page": f"[{row['page']}]({row['page']}.html#fig-{row['figure']})",
        }
        for _, row in rows.iterrows()
    ]
    return Prose(
        f"{table(pd.DataFrame(lines))}\n\nEnergy with the choice over energy without it, GPUs that take part unless it"
        f" says otherwise; in brackets {level(evidence.assumptions.confidence)} intervals."
    )


def _rows(evidence: Evidence, choice: _Choice) -> Iterator[dict[str, object]]:
    """Rows of one choice: those of the common model, else of the first other one, over all models if there is none."""
    frame = getattr(evidence, choice.table)
    found = frame.query(choice.where, engine="python").dropna(subset=[choice.column])
    common = found["model"].eq(MODEL)
    single = found[found["model"].ne("all")]
    others = single if len(single) else found
    models = found[common] if common.any() else others[others["model"].eq(others["model"].min())]
    about: dict[str, object] = {"decision": choice.decision, "per": choice.per}
    about |= {"page": choice.page, "figure": choice.figure}
    if models.empty:
        yield about
    for _, row in models.iterrows():
        ends = [float(row[f"{choice.column}{end}"]) for end in ("", "_low", "_high")]
        value, low, high = (1 / ends[0], 1 / ends[2], 1 / ends[1]) if choice.inverse else ends
        ratio = {"energy_ratio": value, "energy_ratio_low": low, "energy_ratio_high": high}
        yield about | ratio | {"choice": choice.words.format(**row), "model": row["model"]}


def _words(row: pd.Series) -> str:
    """``0.26 (0.25 to 0.27)``, or ``0.75 (too few repetitions)``."""
    ends = row["energy_ratio_low"], row["energy_ratio_high"]
    within = span(*ends, "") if known(ends[0]) and known(ends[1]) else "too few repetitions"
    return f"{number(row['energy_ratio'], 2)} ({within})"


def _moved(ratio: float) -> str:
    """``74 % less``, ``2.1× as much``."""
    return f"{percent(1 - ratio)} less" if ratio < 1 else f"{fold(ratio)} as much"
