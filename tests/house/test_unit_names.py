"""Every number says its unit: fields of records and configuration, columns, numeric dataclass fields."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest
from pydantic import BaseModel

import inference_energy
from inference_energy import tables
from inference_energy.units import unit_of

#: Numeric fields whose name carries no unit, and why: `module.Class.field`, or a name wherever it stands.
EXCEPTIONS: dict[str, str] = {
    "records.parts.Trace.throttle_reasons": "NVML's bit mask: a code, not a quantity",
    "records.parts.EngineFacts.options": "options as an engine has them, by its names",
    "records.parts.SharedProcess.position": "a place among runs: an ordinal",
    "measure.client.Exchange.pieces": "bytes, with the time at which they came",
    "cycles": "numbers of cycles to ask for: ordinals",
    "portions": "numbers of portions to ask for: ordinals",
    "portion": "number of a portion: an ordinal",
    "portion_size": "a count of settings, as batch_size is one of prompts",
    "traversal": "number of a cycle: an ordinal",
    "chosen": "numbers of combinations: ordinals",
    "d_efficiency": "its name in the literature; a ratio",
    "fraction.Efficiency.terms": "ratios by the name of a term",
    "measure.devices.DeviceSet.takes_part": "numbers of devices: ordinals",
    "measure.devices.DeviceSet.claimable": "numbers of devices: ordinals",
    "coefficients": "of logarithms of energy: pure numbers",
    "covariance": "of such coefficients",
    "design": "columns of a linear model: mostly 0 and 1",
    "response": "logarithms of energy",
    "residuals": "differences of logarithms",
    "slopes": "derivatives of logarithms",
    "held_out": "a flag for each setting",
    "budget.Ended.status": "a process's exit status: a code",
    "measure.attempts.Attempt.exit_status": "a process's exit status: a code",
    "attempt": "number of a start of a run: an ordinal",
    "measure.engines.several._Member.number": "number of a process: an ordinal",
    "measure.recorder._Raw.lap": "number of a lap: an ordinal",
    "token_ids": "identifiers",
    "attention_mask": "a flag for each token",
    "parent_n_device_files": "a count; the parent comes first because the parent is what it is about",
}

#: Leaf types of an annotation that hold numbers.
NUMERIC = {"int", "float", "ndarray", "NDArray", "floating", "float64", "int64", "Quantity", "Floats"}


def numeric(annotation: str) -> bool:
    """Whether values of `annotation` are or contain numbers; functions that return numbers do not count."""

    def leaves(node: ast.AST) -> set[str]:
        if isinstance(node, ast.Subscript):
            head = ast.unparse(node.value).split(".")[-1]
            if head in {"Callable", "Literal", "ClassVar"}:
                return set()
            if head == "Annotated" and isinstance(node.slice, ast.Tuple):
                return leaves(node.slice.elts[0])
            return {head} | leaves(node.slice)
        if isinstance(node, ast.Name):
            return {node.id}
        if isinstance(node, ast.Attribute):
            return {node.attr}
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return leaves(ast.parse(node.value, mode="eval").body)
        return {leaf for child in ast.iter_child_nodes(node) for leaf in leaves(child)}

    return bool(leaves(ast.parse(annotation, mode="eval")) & NUMERIC)


def _modules() -> list[ModuleType]:
    names = [
        name
        for _, name, _ in pkgutil.walk_packages(inference_energy.__path__, "inference_energy.")
        if not name.endswith("__main__")
    ]
    return [importlib.import_module(name) for name in names]


def _numeric_fields() -> list[str]:
    """``module.Class.field`` of every numeric field of a pydantic model or dataclass of the package."""
    found = []
    for module in _modules():
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ != module.__name__:
                continue
            if issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind):
                annotations = inspect.get_annotations(kind)
                found += [
                    f"{module.__name__.removeprefix('inference_energy.')}.{kind.__name__}.{name}"
                    for name, annotation in annotations.items()
                    if numeric(str(annotation))
                ]
    return found


FIELDS = _numeric_fields()


@pytest.mark.parametrize("field", FIELDS)
def test_a_numeric_field_carries_its_unit(field: str) -> None:
    name = field.rsplit(".", 1)[1]
    if field not in EXCEPTIONS and name not in EXCEPTIONS:
        unit_of(name)


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_every_exception_is_needed(exception: str) -> None:
    assert [field for field in FIELDS if exception in (field, field.rsplit(".", 1)[1])], "no such field"
    with pytest.raises(KeyError):
        unit_of(exception.rsplit(".", 1)[-1])


def test_the_walk_finds_what_it_should() -> None:
    for known in (
        "records.parts.Interval.uncertainty_j",
        "config.Measurement.sample_period_s",
        "measure.meter.Reading.energy_j",
        "records.parts.Trace.power_instant_w",
        "factors.Setting.top_p",
    ):
        assert known in FIELDS


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("float", True),
        ("list[list[float | None]]", True),
        ("NDArray[np.float64]", True),
        ("dict[str, Quantity]", True),
        ("str", False),
        ("Callable[[], float]", False),
        ("Literal[1]", False),
        ("bool", False),
        ("list[Interval]", False),
    ],
)
def test_numeric_tells_numbers_apart(annotation: str, expected: bool) -> None:
    assert numeric(annotation) is expected


@pytest.mark.parametrize("table", tables.TABLES.values(), ids=tables.TABLES)
def test_a_numeric_column_carries_its_unit(table: tables.Table) -> None:
    for column in table.columns:
        if column.dtype in (tables.INTEGER, tables.FLOAT):
            unit_of(column.name)
        assert column.description, f"{table.name}.{column.name} has no description"


def test_the_data_dictionary_lists_every_column() -> None:
    dictionary = tables.data_dictionary()
    assert len(dictionary) == sum(len(table.columns) for table in tables.TABLES.values())
    assert not dictionary.duplicated(["table", "column"]).any()
