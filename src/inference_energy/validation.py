"""Reading YAML into closed models, with one clear error where it does not fit.

Every problem pydantic reports becomes one paragraph: file, key, what was found, what was expected.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from inference_energy.errors import ConfigError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)

#: What pydantic's limits are called, and how to say what they expect.
_EXPECTED = {
    "greater_than": "a number above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "at most {le}",
    "finite_number": "a finite number",
    "string_pattern_mismatch": "text that matches {pattern}",
    "too_short": "at least {min_length} of them",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}


class Base(BaseModel):
    """A section of the configuration: immutable, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def unknown_key_error(name: str, what: str, hint: str) -> PydanticCustomError:
    """Error of a validator that meets a key which is no `what` (as in "no factor")."""
    return PydanticCustomError(
        "unknown_name", "{name} is not a {what}. {hint}", {"name": name, "what": what, "hint": hint}
    )


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML's safe loader, which also refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build the mapping of `node`, or complain."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value if isinstance(key.value, str) else repr(key.value))
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def read_yaml(path: Path) -> Any:
    """Parse one YAML file.

    Raises
    ------
    ConfigError
        If the file is missing, is no YAML, or holds a key twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(str(path), "no such file", "a YAML file", "Check the name") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(str(path), f"not readable as YAML: {reason}", "a YAML file") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Parse one YAML file whose top level is a mapping.

    Raises
    ------
    ConfigError
        As :func:`read_yaml`, or if there is no mapping.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(str(path), f"the file holds {_kind(content)}", "a mapping of keys to values")
    return content


def validated(model: type[Model], value: Any, where: str) -> Model:
    """`value` as a `model`, or one clear error that names the first key at fault.

    Raises
    ------
    ConfigError
        Names the file, the key, what was found and what is known.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _config_error(model, error, where) from error


def explain(problem: ErrorDetails) -> tuple[str, str]:
    """What was found and what was expected, in words, for one problem pydantic reports.

    Returns
    -------
    (str, str)
        The second is empty where the first says it all.
    """
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "missing":
        return "this key is missing", "a value"
    if kind in {"value_error", "unknown_name"}:
        return problem["msg"].removeprefix("Value error, "), ""
    found = (
        f"found {problem['input']!r}"
        if not isinstance(problem["input"], dict | list)
        else (f"found {_kind(problem['input'])}")
    )
    if kind == "literal_error":
        known = context["expected"].replace("'", "").replace(" or ", ", ")
        return f"{found}. {did_you_mean(str(problem['input']), known.split(', '))}", ""
    if kind in _EXPECTED:
        return found, _EXPECTED[kind].format(**context)
    return f"{found}: {problem['msg']}", ""


def _config_error(model: type[BaseModel], error: ValidationError, where: str) -> ConfigError:
    first = error.errors()[0]
    location = ".".join(str(part) for part in first["loc"])
    more = error.error_count() - 1
    others = f"{more} more {'problem' if more == 1 else 'problems'} after this one" if more else ""
    if first["type"] == "unknown_name":
        key = f"{location}.{first['msg']}" if location else first["msg"]
        return ConfigError(where, key, "", others)
    path = f"{where}: {location}" if location else where
    if first["type"] == "extra_forbidden":
        hint = did_you_mean(str(first["loc"][-1]), _keys_at(model, first["loc"][:-1]))
        return ConfigError(path, f"unknown key. {hint}", "", others)
    found, expected = explain(first)
    return ConfigError(path, found, expected, others)


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Field names that are allowed at `location` below `model`."""
    current = [model]
    for part in location:
        below = [
            inner
            for candidate in current
            if (field := candidate.model_fields.get(str(part)))
            for inner in _models_in(field.annotation)
        ]
        current = below or current
    return sorted({name for candidate in current for name in candidate.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]


def _kind(value: Any) -> str:
    names = {type(None): "nothing", list: "a list", dict: "a mapping", str: "text"}
    return names.get(type(value), repr(value))
