"""Notebooks ask and show: stripped, titled by a question, one parameters cell, no definitions, few imports.

A rule is a function from a notebook to a list of complaints; each is first shown to complain.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

FOREIGN = {"pandas", "IPython", "pathlib", "__future__"}
OURS = {"tables", "figures", "policy"}
#: A typed quantity: a number with a unit. Quantities in prose come from policy.py.
QUANTITY = re.compile(r"\b\d+(\.\d+)?\s?(%|m?J\b|k?Wh?\b|m?s\b|GB\b|€|tokens?\b|fold\b|times\b)|\b\d+\.\d+\b")

Notebook = nbformat.NotebookNode


def _code(notebook: Notebook) -> list[tuple[int, str]]:
    return [(i, cell.source) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]


def complain_title(notebook: Notebook) -> list[str]:
    """The first cell is a heading of level one, and a question."""
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown":
        return ["the first cell is no text"]
    title = first.source.splitlines()[0] if first.source else ""
    return [] if re.fullmatch(r"# \S.*\?", title) else [f"the title is no question: {title!r}"]


def complain_parameters(notebook: Notebook) -> list[str]:
    """One code cell is tagged parameters and only assigns literals; its defaults let Run All work."""
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        return [f"{len(tagged)} cells are tagged parameters, expected one"]
    for statement in ast.parse(tagged[0].source).body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or not isinstance(statement.value, ast.Constant):
            return [f"the parameters cell does more than name values: {ast.unparse(statement)}"]
    return []


def complain_stripped(notebook: Notebook) -> list[str]:
    """No outputs, no execution counts."""
    return [
        f"cell {i} holds outputs (nbstripout removes them)"
        for i, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None)
    ]


def complain_definitions(notebook: Notebook) -> list[str]:
    """Nothing is defined and nothing loops: a function without a room says that a room is missing."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda | ast.For | ast.While
    return [
        f"cell {i} computes: {ast.unparse(node).splitlines()[0]}"
        for i, source in _code(notebook)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, kinds)
    ]


def complain_imports(notebook: Notebook) -> list[str]:
    """Only tables, figures and policy of ours; pandas, IPython and pathlib of others."""
    found = []
    for i, source in _code(notebook):
        for node in ast.walk(ast.parse(source)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = (
                    [f"{node.module}.{alias.name}" for alias in node.names]
                    if node.module == "inference_energy"
                    else [node.module or ""]
                )
            for name in names:
                parts = name.split(".")
                allowed = parts[1:2] and parts[1] in OURS if parts[0] == "inference_energy" else parts[0] in FOREIGN
                if not allowed:
                    found.append(f"cell {i} imports {name}")
    return found


def complain_typed_numbers(notebook: Notebook) -> list[str]:
    """Prose holds no quantities: they would not change with the campaign."""
    return [
        f"cell {i} types a number: {match.group()!r}"
        for i, cell in enumerate(notebook.cells)
        if cell.cell_type == "markdown" and (match := QUANTITY.search(cell.source))
    ]


RULES = [
    complain_title,
    complain_parameters,
    complain_stripped,
    complain_definitions,
    complain_imports,
    complain_typed_numbers,
]


def _good() -> Notebook:
    parameters = new_code_cell('campaign = "h200"', metadata={"tags": ["parameters"]})
    return new_notebook(
        cells=[
            new_markdown_cell("# What does a token cost?\n\nWhy it matters."),
            parameters,
            new_code_cell(
                "from pathlib import Path\nfrom inference_energy import figures, policy, tables\nimport pandas as pd"
            ),
            new_code_cell("figures.batch_curve(curve)"),
        ]
    )


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS, "notebooks/ is empty"


@pytest.mark.parametrize("rule", RULES)
def test_every_notebook_keeps_the_rule(rule: Callable[[Notebook], list[str]]) -> None:
    complaints = [
        f"{path.name}: {complaint}" for path in NOTEBOOKS for complaint in rule(nbformat.read(path, as_version=4))
    ]
    assert not complaints, "\n".join(complaints)


def test_notebooks_are_valid_and_numbered() -> None:
    for path in NOTEBOOKS:
        nbformat.validate(nbformat.read(path, as_version=4))
        assert re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", path.name), path.name


@pytest.mark.parametrize("rule", RULES)
def test_a_good_notebook_passes(rule: Callable[[Notebook], list[str]]) -> None:
    assert rule(_good()) == []


@pytest.mark.parametrize(
    ("rule", "index", "cell", "words"),
    [
        (complain_title, 0, new_markdown_cell("# Energy"), "no question"),
        (complain_title, 0, new_markdown_cell("## Why?"), "no question"),
        (complain_title, 0, new_code_cell("x = 1"), "no text"),
        (complain_parameters, 1, new_code_cell("campaign = 'x'"), "0 cells are tagged"),
        (complain_parameters, 1, new_code_cell("x = f()", metadata={"tags": ["parameters"]}), "does more"),
        (complain_stripped, 3, new_code_cell("1", execution_count=1), "outputs"),
        (complain_definitions, 3, new_code_cell("def f():\n    pass"), "def f()"),
        (complain_definitions, 3, new_code_cell("frame.map(lambda x: x)"), "lambda x"),
        (complain_definitions, 3, new_code_cell("for x in y:\n    print(x)"), "for x in y"),
        (complain_imports, 2, new_code_cell("import numpy as np"), "imports numpy"),
        (complain_imports, 2, new_code_cell("from inference_energy.records import Record"), "inference_energy.records"),
        (complain_imports, 2, new_code_cell("from inference_energy import analyse"), "inference_energy.analyse"),
        (complain_typed_numbers, 0, new_markdown_cell("# Why?\n\nIt takes 178 mJ."), "178 mJ"),
        (complain_typed_numbers, 0, new_markdown_cell("# Why?\n\nA factor of 2.5."), "2.5"),
    ],
)
def test_a_broken_notebook_is_seen(
    rule: Callable[[Notebook], list[str]], index: int, cell: Notebook, words: str
) -> None:
    notebook = _good()
    notebook.cells[index] = cell
    assert words in rule(notebook)[0]
