"""Notebooks run with known parameters only, and pages need no network and come out the same twice."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from inference_energy import render
from inference_energy.errors import NotebookError

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
FOOTER = {"Campaign": "pilot: a title", "Commit": "0123abc", "Versions": "torch <2.13>"}


def _notebook(path: Path, *sources: str, parameters: str = "number = 1\nword = 'a'") -> Path:
    tagged = new_code_cell(parameters)
    tagged.metadata["tags"] = ["parameters"]
    cells = [new_markdown_cell("# What is it?"), tagged, *(new_code_cell(source) for source in sources)]
    nbformat.write(
        new_notebook(
            cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        ),
        path,
    )
    return path


def test_an_unknown_parameter_is_refused_with_a_hint(tmp_path: Path) -> None:
    source = _notebook(tmp_path / "a.ipynb", "number")
    with pytest.raises(NotebookError, match=r"'numbr' is not a parameter.*Did you mean number\?"):
        render.execute(source, tmp_path / "out.ipynb", {"numbr": 2})
    assert not (tmp_path / "out.ipynb").exists()


def test_a_notebook_needs_exactly_one_parameters_cell(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("x = 1")]), path)
    with pytest.raises(NotebookError, match="0 cells are tagged"):
        render.parameter_names(path)
    with pytest.raises(NotebookError, match="no such notebook"):
        render.parameter_names(tmp_path / "b.ipynb")
    path.write_text("no json", encoding="utf-8")
    with pytest.raises(NotebookError, match="is no notebook"):
        render.parameter_names(path)


def test_a_failing_cell_is_one_paragraph_and_leaves_nothing(tmp_path: Path) -> None:
    source = _notebook(tmp_path / "a.ipynb", "{}['lost key']")
    with pytest.raises(NotebookError) as caught:
        render.execute(source, tmp_path / "out.ipynb", {"number": 2})
    said = str(caught.value)
    for part in ("a.ipynb", "cell 3", "KeyError", "lost key"):
        assert part in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.ipynb"]


def test_two_executions_and_renderings_give_the_same_bytes(tmp_path: Path) -> None:
    source = _notebook(tmp_path / "a.ipynb", "number + 1")
    for name in ("one", "two"):
        render.execute(source, tmp_path / f"{name}.ipynb", {"number": 41})
        render.to_html(tmp_path / f"{name}.ipynb", tmp_path / f"{name}.html", FOOTER)
    assert (tmp_path / "one.ipynb").read_bytes() == (tmp_path / "two.ipynb").read_bytes()
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert "42" in (tmp_path / "one.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in (tmp_path / "one.ipynb").read_text(encoding="utf-8")


def test_code_is_hidden_until_asked_for(tmp_path: Path) -> None:
    source = _notebook(tmp_path / "a.ipynb", "number")
    render.to_html(source, tmp_path / "a.html", FOOTER)
    html = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "#show-code:not(:checked) ~ main .input { display: none; }" in html
    assert len(re.findall(r"<input\b", html)) == 1
    assert 'class="input"' in html
    assert "checked>" not in html


def test_the_footer_is_escaped_and_complete(tmp_path: Path) -> None:
    source = _notebook(tmp_path / "a.ipynb")
    render.to_html(source, tmp_path / "a.html", FOOTER)
    html = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<dt>Commit</dt><dd>0123abc</dd>" in html
    assert "torch &lt;2.13&gt;" in html


def test_a_page_that_would_load_from_the_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# T\n\n![x](https://example.org/x.png)")]), path)
    with pytest.raises(NotebookError, match=r"would load https://example.org/x.png"):
        render.to_html(path, tmp_path / "a.html", FOOTER)
    assert not (tmp_path / "a.html").exists()


def test_a_page_needs_a_title(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("no heading")]), path)
    with pytest.raises(NotebookError, match="has no title"):
        render.to_html(path, tmp_path / "a.html", FOOTER)


def test_unstripped_notebooks_are_refused(tmp_path: Path) -> None:
    path = _notebook(tmp_path / "a.ipynb", "number")
    render.check_stripped(path)
    content = nbformat.read(path, as_version=4)
    content.cells[2].execution_count = 1
    nbformat.write(content, path)
    with pytest.raises(NotebookError, match=r"cell 3.*outputs or an execution count"):
        render.check_stripped(path)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_our_notebooks_are_stripped_and_name_the_archived_campaign(notebook: Path) -> None:
    render.check_stripped(notebook)
    assert render.parameter_names(notebook) == ["campaign", "results"]
    assert 'campaign = "h200"' in nbformat.read(notebook, as_version=4).cells[1].source


def test_run_all_without_tables_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotebookError, match="make study"):
        render.execute(NOTEBOOKS[0], tmp_path / "out.ipynb", {"results": str(tmp_path)})


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ('policy.load(results, campaign, ["runs", "windows"])', ["runs", "windows"]),
        ("policy.load(results, campaign)", None),
    ],
)
def test_the_tables_a_notebook_loads_are_read_from_its_source(
    tmp_path: Path, load: str, expected: list[str] | None
) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"evidence = {load}")])
    nbformat.write(notebook, tmp_path / "n.ipynb")
    assert render.loaded_tables(tmp_path / "n.ipynb") == expected
