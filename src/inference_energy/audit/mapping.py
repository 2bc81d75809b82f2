"""Published tables in the one form of :mod:`inference_energy.audit.records`: which column is what, in which unit."""

from __future__ import annotations

import difflib
import gzip
import hashlib
import io
import zlib
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from inference_energy.audit.records import TEXT, Records, Stated, of_columns
from inference_energy.errors import AnalysisError, ConfigError, did_you_mean
from inference_energy.facts import HardwareFacts, ModelFacts
from inference_energy.units import joules_from_kwh
from inference_energy.validation import Base, read_mapping, validated

#: What one of each unit is in the unit of our columns.
_SCALE = {
    "J": 1.0,
    "Wh": joules_from_kwh(1e-3),
    "kWh": joules_from_kwh(1.0),
    "W": 1.0,
    "kW": 1e3,
    "s": 1.0,
    "ms": 1e-3,
    "fraction": 1.0,
    "percent": 1e-2,
    "": 1.0,
}


class Plain(Base):
    """A column of text, of counts, or of a rate in the unit its key names."""

    column: str = Field(description="name in the file")
    unit: Literal[""] = ""


class Energy(Base):
    """A column of energies."""

    column: str = Field(description="name in the file")
    unit: Literal["J", "Wh", "kWh"]


class Power(Base):
    """A column of powers."""

    column: str = Field(description="name in the file")
    unit: Literal["W", "kW"]


class Duration(Base):
    """A column of durations."""

    column: str = Field(description="name in the file")
    unit: Literal["s", "ms"]


class Share(Base):
    """A column of shares."""

    column: str = Field(description="name in the file")
    unit: Literal["fraction", "percent"]


class Joined(Base):
    """Columns of text that together name something."""

    columns: list[str] = Field(min_length=2, description="names in the file")


class Constant(Base):
    """One value for all runs, where the file has none."""

    value: float
    source: str


Quantity = Plain | Energy | Power | Duration | Share


class RunColumns(Base):
    """One value a run."""

    run: Plain | Joined = Field(description="what a run is called")
    energy_j: Energy = Field(description="energy of a run, as published")
    n_processes: Plain | None = Field(default=None, description="processes, each with a tracker; null: one")
    n_tokens_counted: Plain | None = Field(default=None, description="tokens that energy is divided by")
    group: Plain | None = Field(default=None, description="such as the model")
    cycle: Plain | None = None
    ended_at: Plain | None = Field(default=None, description="time of a run's end")
    batch_size: Plain | None = None
    n_prompts: Plain | None = None
    n_input_tokens: Plain | Constant | None = Field(default=None, description="of a prompt")
    n_output_tokens: Plain | Constant | None = Field(default=None, description="of a prompt")
    duration_s: Duration | None = None
    batch_duration_s: Duration | None = Field(default=None, description="mean over the batches of one process")
    throughput_tokens_per_s: Plain | None = None
    energy_j_per_output_token: Energy | None = None
    work_flop: Plain | None = None
    n_parameters: Plain | None = None


class ProcessColumns(Base):
    """One value a process; ``{number}`` in a column's name stands for the process's."""

    gpu_energy_j: Energy
    cpu_energy_j: Energy | None = None
    ram_energy_j: Energy | None = None
    energy_j: Energy | None = Field(default=None, description="of all parts together")
    gpu_power_w: Power | None = Field(default=None, description="as stored, whatever it is of")
    cpu_power_w: Power | None = None
    duration_s: Duration | None = None


class GpuColumns(Base):
    """One value a GPU; ``{number}`` in a column's name stands for the GPU's."""

    utilisation_fraction: Share


class Source(Base):
    """Where a file is public."""

    url: str
    commit: str
    sha256: str = Field(description="of the file's content, unpacked")


class StatedValues(Base):
    """What the study's text says of all its runs."""

    n_input_tokens: float | None = None
    n_output_tokens: float | None = None
    n_cycles: float | None = None
    cycle_gap_s: float | None = None
    source: str


class Mapping(Base):
    """What the columns of one published file mean (``resources/audit/*.yaml``)."""

    name: Annotated[str, Field(pattern=r"[a-z][a-z0-9_]*")]
    title: str
    source: Source
    note: str = ""
    gpu: str = Field(description="key of config/hardware.yaml: gives the card's power limit")
    n_gpus: int = Field(ge=1, description="GPUs of the machine")
    precision: str | None = Field(default=None, description="number format of all runs: gives the card's peak rate")
    models: dict[str, str] = Field(
        default={}, description="group: key of config/models.yaml, where it is not the model's hub name"
    )
    runs: RunColumns
    processes: ProcessColumns
    duration_from_cpu: bool = Field(default=False, description="CPU energy over a constant CPU power is a duration")
    gpus: GpuColumns | None = None
    setting: list[str] = Field(min_length=1, description="columns in which runs of one setting agree")
    stated: StatedValues


def read_mapping_of(path: Path) -> Mapping:
    """The mapping in one YAML file.

    Raises
    ------
    ConfigError
        If a key is unknown or missing, or a unit does not belong to a quantity.
    """
    return validated(Mapping, read_mapping(path), str(path))


def power_limit(mapping: Mapping, hardware: dict[str, HardwareFacts], where: str) -> tuple[float, str]:
    """The limit (W) of one card, and its source.

    Raises
    ------
    ConfigError
        If no fact is known of the GPU: a limit is never guessed.
    """
    if mapping.gpu not in hardware:
        raise ConfigError(
            where,
            f"gpu: no facts of {mapping.gpu!r}. {did_you_mean(mapping.gpu, hardware)}",
            "",
            "Add the card and the source of its limit to config/hardware.yaml",
        )
    fact = hardware[mapping.gpu].power_limit_w
    return float(fact.value), f"{fact.source} ({fact.year})"


def peak_rate(mapping: Mapping, hardware: dict[str, HardwareFacts]) -> float:
    """Peak FLOP/s of one card in the number format of the runs; missing where either is not known."""
    rates = {str(name): float(fact.value) for name, fact in hardware[mapping.gpu].peak_flop_per_s.items()}
    return rates.get(mapping.precision or "", float("nan"))


def read_table(path: Path) -> tuple[pd.DataFrame, str]:
    """A published table (``.csv``, ``.csv.gz`` or ``.parquet``) and the SHA-256 of its unpacked content.

    Raises
    ------
    AnalysisError
        If it is missing, of another kind, unreadable or empty.
    """
    try:
        content = path.read_bytes()
        if path.name.endswith(".parquet"):
            frame = pd.read_parquet(io.BytesIO(content))
        elif path.name.endswith((".csv", ".csv.gz")):
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            frame = pd.read_csv(io.BytesIO(content), low_memory=False)
        else:
            raise AnalysisError(str(path), "a file of an unknown kind", ".csv, .csv.gz or .parquet")
    except FileNotFoundError:
        raise AnalysisError(
            str(path), "no such file", "a table of records", "Download it as the audit page says"
        ) from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise AnalysisError(str(path), f"not readable: {error}", "a table of records", "Download it again") from error
    if frame.empty:
        raise AnalysisError(str(path), "the table has no rows", "a row for each run", "Download it again")
    return frame, hashlib.sha256(content).hexdigest()


def to_records(
    frame: pd.DataFrame,
    mapping: Mapping,
    limit_w: float,
    models: dict[str, ModelFacts],
    where: str,
    peak_flop_per_s: float = float("nan"),
) -> Records:
    """The published table in our form: joules, watts and seconds.

    Parameters
    ----------
    frame : DataFrame
        As published.
    limit_w : float
        Power limit of one card.
    models : dict
        Facts of models; one with the same hub name as a run's group gives its number of parameters.
    where : str
        The file, for errors.
    peak_flop_per_s : float
        Peak rate of one card in the number format of the runs.

    Raises
    ------
    AnalysisError
        If a mapped column is missing, or holds text where a number is expected.
    """
    runs = pd.DataFrame(index=frame.index)
    for key, asked in mapping.runs:
        if isinstance(asked, Constant):
            runs[key] = asked.value
        elif isinstance(asked, Joined):
            runs[key] = pd.concat([_column(frame, name, where).astype(str) for name in asked.columns], axis=1).agg(
                ", ".join, axis=1
            )
        elif asked is not None:
            column = _column(frame, asked.column, where)
            runs[key] = column if key in (*TEXT, "ended_at") else _numbers(column, asked, where)
    runs["n_processes"] = runs.get("n_processes", 1.0)
    setting = [_column(frame, name, where).astype("string").fillna("") for name in mapping.setting]
    runs["setting"] = pd.concat(setting, axis=1).agg("|".join, axis=1)
    runs["group"] = runs.get("group", "all")
    named = {str(fact.hub_name.value): fact for fact in models.values() if fact.hub_name}
    named |= {group: models[key] for group, key in mapping.models.items() if key in models}
    runs["n_model_parameters"] = runs["group"].map({name: float(one.n_parameters.value) for name, one in named.items()})
    runs["n_layer_parameters"] = runs["group"].map({name: _in_layers(one) for name, one in named.items()})
    runs = runs.assign(
        power_limit_w=limit_w,
        peak_flop_per_s=peak_flop_per_s,
        n_machine_gpus=mapping.n_gpus,
        lane=mapping.name,
        wall_s=runs.get("duration_s", np.nan),
    )
    if mapping.runs.ended_at is not None:
        runs["ended_at"] = _times(_column(frame, mapping.runs.ended_at.column, where), where)
    runs = runs.reset_index(drop=True)
    numbers = range(int(runs["n_processes"].max()))
    processes = _long(frame, dict(mapping.processes), numbers, where)
    if mapping.duration_from_cpu:
        if mapping.processes.cpu_energy_j is None or mapping.processes.cpu_power_w is None:
            raise ConfigError(where, "duration_from_cpu without cpu_energy_j and cpu_power_w", "both in processes")
        processes["duration_s"] = processes["cpu_energy_j"] / processes["cpu_power_w"]
    gpus = pd.DataFrame(columns=["row", "number", "utilisation_fraction"])
    if mapping.gpus is not None:
        gpus = _long(frame, dict(mapping.gpus), range(mapping.n_gpus), where)
    given = mapping.stated.model_dump(exclude={"source"}, exclude_none=True)
    return of_columns(mapping.name, runs, processes, gpus, Stated(**given))


def _in_layers(facts: ModelFacts) -> float:
    """Parameters without the embedding and the last layer: what every token is multiplied with."""
    shape = facts.shape
    outside = shape["vocab_size"] * shape["hidden_size"] * (1 if shape["tie_word_embeddings"] else 2)
    return float(facts.n_parameters.value) - float(outside)


def _long(frame: pd.DataFrame, columns: dict[str, Quantity | None], numbers: range, where: str) -> pd.DataFrame:
    """A row for each run and number; those without any value are left out."""
    asked = {key: column for key, column in columns.items() if column is not None}
    parts = []
    for number in numbers:
        part = pd.DataFrame({"row": range(len(frame)), "number": number})
        for key, column in asked.items():
            found = _column(frame, column.column.replace("{number}", str(number)), where)
            part[key] = _numbers(found, column, where).to_numpy()
        parts.append(part)
    return pd.concat(parts, ignore_index=True).dropna(subset=list(asked), how="all")


def _column(frame: pd.DataFrame, name: str, where: str) -> pd.Series:
    if name not in frame.columns:
        close = difflib.get_close_matches(name, [str(known) for known in frame.columns], n=3)
        like = f"Like it: {', '.join(close)}" if close else f"none of its {len(frame.columns)} columns is like it"
        raise AnalysisError(where, f"no column {name!r}. {like}", "", "Correct the mapping, or take the file it is for")
    return frame[name]


def _numbers(column: pd.Series, asked: Quantity, where: str) -> pd.Series:
    try:
        return pd.to_numeric(column).astype("float64") * _SCALE[asked.unit]
    except (TypeError, ValueError) as error:
        raise AnalysisError(f"{where}, column {column.name}", str(error), "numbers", "Correct the mapping") from error


def _times(column: pd.Series, where: str) -> pd.Series:
    try:
        return pd.to_datetime(column, format="mixed")
    except (TypeError, ValueError) as error:
        raise AnalysisError(f"{where}, column {column.name}", str(error), "times", "Correct the mapping") from error
