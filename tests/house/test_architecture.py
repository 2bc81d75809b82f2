"""The house's rules about rooms, sizes and names, read from the sources with ``ast``.

``ROOMS`` is the table of ``docs/architecture.md`` as data. A rule is a function from a source to a
list of complaints; each rule is first shown to complain about a source that breaks it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "inference_energy"
NAME = "inference_energy"


@dataclass(frozen=True)
class Room:
    """What a room may import from us, and which foreign packages (None: any)."""

    ours: frozenset[str]
    reason: str
    foreign: frozenset[str] | None = None
    inner: bool = True  # whether modules of the room may import one another


def _room(ours: str, reason: str, foreign: str | None = None, *, inner: bool = True) -> Room:
    packages = None if foreign is None else frozenset(foreign.split())
    return Room(frozenset(ours.split()), reason, packages, inner)


ROOMS = {
    "errors": _room("", "everything may raise", ""),
    "units": _room("", "the words for quantities depend on nothing", ""),
    "resample": _room("", "resampling is arithmetic on arrays", "numpy"),
    "verdicts": _room("", "whether an estimate meets a claim is arithmetic", ""),
    "validation": _room("errors", "reads YAML into closed models, whatever they are"),
    "facts": _room("errors units validation", "the outside world, before anything is asked of it"),
    "factors": _room("errors units validation", "what can be varied, and which levels go together"),
    "config": _room("errors units validation facts factors", "says what may be asked for, not how it is done"),
    "lengths": _room("config", "lengths of prompts and answers are known before anything is drawn", "numpy scipy"),
    "fraction": _room("errors", "chooses combinations, whatever they are of", "numpy"),
    "design": _room("errors units validation facts factors config lengths fraction", "plans without measuring"),
    "provenance": _room("errors config", "asked by every room, so it drags nothing along", ""),
    "records": _room("errors units validation facts config", "the contract between measuring and the rest"),
    "qualification": _room("errors records", "the instrument's own record, for measuring and for tables"),
    "measure": _room(
        "errors units validation facts factors config lengths design records qualification provenance",
        "runs where nothing is analysed",
    ),
    "tables": _room("errors units", "the contract between aggregate and the rest"),
    "campaigns": _room(
        "errors units validation facts config design records", "what the workflow asks for: names of runs and files"
    ),
    "readings": _room("errors units records", "arithmetic on one record"),
    "flatten": _room("errors units records readings tables", "one record in, rows out"),
    "aggregate": _room(
        "errors units validation facts config design records qualification provenance tables readings flatten",
        "records in, checked tables out",
    ),
    "archive": _room(
        "errors units validation facts config design records provenance tables readings flatten aggregate",
        "keeps what aggregate accepts: records in, one file out, and back",
    ),
    "pairs": _room("errors tables", "which runs may be compared, for every analysis that compares", "numpy pandas"),
    "audit": _room(
        "errors units validation facts tables resample",
        "checks and accountings that hold for any study's records, read through a mapping",
    ),
    "models": _room(
        "errors tables",
        "linear and additive models of log energy, for several questions",
        "numpy pandas scipy statsmodels",
    ),
    "analyse": _room(
        "errors units tables resample pairs models audit verdicts",
        "frames in, a result out; questions stay apart",
        inner=False,
    ),
    "about": _room("errors", "says which campaign it is, and imports nothing heavy", ""),
    "figures": _room("errors units tables verdicts models", "draws tables and results"),
    "policy": _room("errors units tables verdicts models about", "says tables and results in words"),
    "render": _room("errors", "executes notebooks, and knows nothing of their content"),
    "questions": _room("errors tables analyse", "names the analyses for the workflow; imports them only to run them"),
    "pages": _room("errors units validation facts config records provenance", "what pages say besides the tables"),
    "budget": _room("", "runs any command for a stated time", "psutil"),
    "history": _room("errors units validation facts factors config", "reads of records what planning needs"),
    "planner": _room(
        "errors units validation facts factors config design history measure",
        "estimates from earlier records; of measure it knows only the arithmetic of windows and waiting",
    ),
    "commands_measure": _room("*", "the commands that plan and measure: part of the command line"),
    "cli": _room("*", "wires the rooms together"),
    "__init__": _room("", "importing the package costs nothing", ""),
    "__main__": _room("cli", "python -m inference_energy"),
}

#: Packages that only `measure` may import, and only inside functions: they are heavy, or touch a device.
DEVICE_PACKAGES = frozenset({"torch", "transformers", "vllm", "pynvml", "codecarbon", "accelerate", "bitsandbytes"})

#: Where something broader than a named error may be caught, and why. `cli` is where errors become messages.
BROAD_CATCHES: dict[str, str] = {
    "cli": "the one place where an error becomes a message and an exit code",
    "measure.launcher": "a forked child must end with an exit code: it may not return into its parent's loop",
    "measure.engines.several": "a process of the engine tells the measuring process whatever went wrong",
    "measure.sampler": "CodeCarbon's own process: a column for comparison never costs a run its record",
}


BROAD = frozenset({"StudyError", "Exception", "BaseException"})
MODULE_LINES = 400
FUNCTION_LINES = 60
EMPTY_NAMES = re.compile(r"^(utils?|helpers?|misc|common|tools)$")


@dataclass(frozen=True)
class Import:
    """One import: which top-level package, the room if it is ours, where it stands."""

    package: str
    room: str | None
    module: str
    line: int
    in_function: bool


def imports_of(tree: ast.Module) -> Iterator[Import]:
    """Every import that is executed (not those for type checkers only)."""

    def visit(node: ast.AST, *, in_function: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield _import(alias.name, child.lineno, in_function=in_function)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"line {child.lineno}: relative import"
                base = child.module or ""
                names = [f"{base}.{alias.name}" for alias in child.names] if base == NAME else [base]
                for name in names:
                    yield _import(name, child.lineno, in_function=in_function)
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from visit(child, in_function=in_function or inner)

    yield from visit(tree, in_function=False)


def _import(name: str, line: int, *, in_function: bool) -> Import:
    parts = name.split(".")
    room = parts[1] if parts[0] == NAME and len(parts) > 1 else None
    return Import(parts[0], room, ".".join(parts[1:3]), line, in_function)


def complain_rooms(tree: ast.Module, module: str) -> list[str]:
    """Imports from rooms that `module`'s room may not know, or of foreign packages it may not use."""
    name = module.split(".")[0]
    if name not in ROOMS:
        return [f"{module}: no room is called {name}; known: {', '.join(ROOMS)}"]
    room, found = ROOMS[name], []
    for each in imports_of(tree):
        here = f"{module}:{each.line}"
        if each.package == NAME:
            if each.room is None or each.room == "__version__" or "*" in room.ours:
                continue
            if each.room == name:
                if not room.inner and each.module != module and module != name:
                    found.append(f"{here}: modules of {name} do not import one another")
            elif each.room not in room.ours:
                found.append(f"{here}: {name} may not import {each.room} ({room.reason})")
        elif room.foreign is not None and each.package not in room.foreign and not _is_standard(each.package):
            found.append(f"{here}: {name} may not import {each.package} ({room.reason})")
    return found


def complain_devices(tree: ast.Module, module: str) -> list[str]:
    """Imports of device packages outside `measure`, or at the top of a module."""
    found = []
    for each in imports_of(tree):
        if each.package in DEVICE_PACKAGES:
            if module.split(".")[0] != "measure":
                found.append(f"{module}:{each.line}: only measure imports {each.package}")
            elif not each.in_function:
                found.append(f"{module}:{each.line}: {each.package} is imported inside functions only")
    return found


def complain_sizes(tree: ast.Module, module: str, source: str) -> list[str]:
    """Modules and functions that want splitting; docstrings are not counted in functions."""
    found = []
    lines = source.count("\n")
    if lines > MODULE_LINES:
        found.append(f"{module}: {lines} lines, at most {MODULE_LINES}")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            length = (node.end_lineno or node.lineno) - body[0].lineno + 1 if body else 0
            if length > FUNCTION_LINES:
                found.append(f"{module}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}")
    return found


def complain_catches(tree: ast.Module, module: str) -> list[str]:
    """Bare `except`, broad `except` outside its places, and `assert`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = _names(node.type)
            if node.type is None:
                found.append(f"{module}:{node.lineno}: bare except")
            elif caught & BROAD and module not in BROAD_CATCHES:
                found.append(f"{module}:{node.lineno}: catches {', '.join(sorted(caught & BROAD))}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            if {name for argument in node.args for name in _names(argument)} & BROAD:
                found.append(f"{module}:{node.lineno}: suppresses a broad error")
        elif isinstance(node, ast.Assert):
            found.append(f"{module}:{node.lineno}: assert vanishes under -O; raise an error of errors.py")
    return found


def complain_docstrings(tree: ast.Module, module: str) -> list[str]:
    """Modules and public functions or classes without a docstring."""
    found = [] if ast.get_docstring(tree) else [f"{module}: no docstring"]
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if public and not ast.get_docstring(node):
            found.append(f"{module}:{node.lineno}: {node.name} has no docstring")
    return found


def _names(node: ast.expr | None) -> set[str]:
    return {
        n.id if isinstance(n, ast.Name) else n.attr
        for n in (ast.walk(node) if node else ())
        if isinstance(n, ast.Name | ast.Attribute)
    }


def _is_standard(package: str) -> bool:
    import sys

    return package in sys.stdlib_module_names


def _modules() -> dict[str, tuple[ast.Module, str]]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        module = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
        source = path.read_text(encoding="utf-8")
        found[module] = (ast.parse(source, str(path)), source)
    return found


MODULES = _modules()


def _complaints(rule: Callable[..., list[str]], **kwargs: str) -> list[str]:
    return [
        c
        for module, (tree, source) in MODULES.items()
        for c in (rule(tree, module, source) if rule is complain_sizes else rule(tree, module, **kwargs))
    ]


@pytest.mark.parametrize(
    "rule", [complain_rooms, complain_devices, complain_sizes, complain_catches, complain_docstrings]
)
def test_the_package_keeps_the_rule(rule: Callable[..., list[str]]) -> None:
    complaints = _complaints(rule)
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("units", "from inference_energy.config import load", "units may not import config"),
        ("config", "from inference_energy import design", "config may not import design"),
        ("measure.run", "import inference_energy.tables", "measure may not import tables"),
        ("analyse.effects", "from inference_energy.records import Record", "analyse may not import records"),
        ("analyse.effects", "from inference_energy.analyse.fold_range import spread", "do not import one another"),
        ("analyse.effects", "from inference_energy.analyse import fold_range", "do not import one another"),
        ("policy", "def f():\n    from inference_energy import measure", "policy may not import measure"),
        ("resample", "import pandas", "resample may not import pandas"),
        ("utils", "x = 1", "no room is called utils"),
    ],
)
def test_a_forbidden_import_is_seen(module: str, source: str, words: str) -> None:
    complaints = complain_rooms(ast.parse(source), module)
    assert len(complaints) == 1
    assert words in complaints[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cli", "from inference_energy import analyse, measure, aggregate"),
        ("resample", "import math\nimport numpy as np"),
        (
            "figures.curves",
            "from inference_energy.figures.style import save\nfrom inference_energy.models import curves",
        ),
        (
            "analyse.effects",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from inference_energy import records",
        ),
    ],
)
def test_an_allowed_import_passes(module: str, source: str) -> None:
    assert complain_rooms(ast.parse(source), module) == []


def test_device_packages_are_seen() -> None:
    at_top = ast.parse("import torch.nn")
    inside = ast.parse("def f():\n    import torch")
    assert "only measure" in complain_devices(inside, "aggregate")[0]
    assert "inside functions" in complain_devices(at_top, "measure.run")[0]
    assert complain_devices(inside, "measure.run") == []


def test_sizes_are_seen() -> None:
    long_function = "def f():\n    '''Say.\n\n" + "    more\n" * 80 + "    '''\n" + "    x = 1\n" * (FUNCTION_LINES + 1)
    assert "f has 61 lines" in complain_sizes(ast.parse(long_function), "m", long_function)[0]
    just_right = long_function.removesuffix("    x = 1\n")
    assert complain_sizes(ast.parse(just_right), "m", just_right) == []
    assert "401 lines" in complain_sizes(ast.parse("\n" * 401), "m", "\n" * 401)[0]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("try:\n    f()\nexcept:\n    pass", "bare except"),
        ("try:\n    f()\nexcept (ValueError, errors.StudyError):\n    pass", "catches StudyError"),
        ("try:\n    f()\nexcept Exception as e:\n    pass", "catches Exception"),
        ("with contextlib.suppress(Exception):\n    f()", "suppresses a broad error"),
        ("assert x", "assert"),
    ],
)
def test_broad_catches_are_seen(source: str, words: str) -> None:
    assert words in complain_catches(ast.parse(source), "aggregate")[0]


def test_named_errors_may_be_caught() -> None:
    assert complain_catches(ast.parse("try:\n    f()\nexcept OSError:\n    raise"), "aggregate") == []
    assert complain_catches(ast.parse("try:\n    f()\nexcept StudyError:\n    raise"), "cli") == []


def test_nothing_is_called_utils_or_helpers() -> None:
    folders = [PACKAGE, ROOT / "tests", ROOT / "workflow", ROOT / "benchmarks"]
    paths = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    # SOURCE: Snakemake's template names the file of what rules share common.smk; readers look for it.
    bad = [path for path in paths if EMPTY_NAMES.match(path.stem) and path.name != "common.smk"]
    assert not bad, f"a function without a room says that a room is missing: {bad}"
    assert EMPTY_NAMES.match("utils")


def test_every_rooms_table_entry_is_known_to_the_architecture_document() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text[text.index("| room |") :]
    for name in ROOMS:
        if not name.startswith("__"):
            assert f"`{name}`" in table.split("\n\n")[0], f"docs/architecture.md does not list the room {name}"


def test_importing_the_package_imports_no_device_package() -> None:
    import subprocess
    import sys

    modules = [f"{NAME}.{m}" for m in MODULES if m not in ("__init__", "__main__")]
    code = (
        "import importlib, sys\n"
        f"for m in {modules!r}: importlib.import_module(m)\n"
        f"print(sorted(set(sys.modules) & {set(DEVICE_PACKAGES)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
