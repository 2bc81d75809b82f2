"""The document for print: the same bytes twice, text and figures there, code and screen-only cells left out."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import nbformat
import pytest
from drawn_campaign import frames, write
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pypdf import PdfReader

from inference_energy import policy, render
from inference_energy.errors import NotebookError

FOOTER = {"Campaign": "pilot: a “title” with 5 % & $more #1", "Commit": "0123abc"}
REPORT = Path(__file__).parents[2] / "notebooks" / "14_policy_report.ipynb"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="80" height="40"><path d="M0 0L80 40" stroke="#112233"/></svg>'


def _shown(**data: str) -> nbformat.NotebookNode:
    """A code cell that shows `data`, given by its kind of text."""
    output = new_output("display_data", data={f"text/{kind}": text for kind, text in data.items()})
    return new_code_cell("secret_code()", outputs=[output])


def _figure() -> nbformat.NotebookNode:
    data = base64.b64encode(SVG.encode()).decode()
    return _shown(html=f'<img class="figure" id="fig-a" alt="A [finding]: 5 %" src="data:image/svg+xml;base64,{data}">')


def _executed(path: Path, *cells: nbformat.NotebookNode, title: str = "# What is said?") -> Path:
    nbformat.write(new_notebook(cells=[new_markdown_cell(title), *cells]), path)
    return path


def _text(pdf: Path) -> str:
    return " ".join(" ".join(page.extract_text() for page in PdfReader(pdf).pages).split())


def test_two_renderings_give_the_same_bytes(tmp_path: Path) -> None:
    executed = _executed(tmp_path / "a.ipynb", _shown(markdown="Some words."), _figure())
    for name in ("one", "two"):
        render.to_pdf(executed, tmp_path / name / "a.pdf", FOOTER)
    first, second = ((tmp_path / name / "a.pdf").read_bytes() for name in ("one", "two"))
    assert first == second
    assert first.startswith(b"%PDF-")
    assert b"CreationDate" not in first
    assert str(tmp_path).encode() not in first


def test_text_tables_and_figures_are_there_and_code_is_not(tmp_path: Path) -> None:
    said = "Glyphs: × ₂ € – ± ≤ θ “quoted”, $5 and #1, a_b [x] <y>.\n\n| head | other |\n| --- | --- |\n| cell | 3 % |"
    hidden = new_markdown_cell("On screen.", metadata={"tags": [render.SCREEN_ONLY]})
    executed = _executed(tmp_path / "a.ipynb", _shown(markdown=said), hidden, _figure())
    render.to_pdf(executed, tmp_path / "a.pdf", FOOTER)
    text = _text(tmp_path / "a.pdf")
    for words in (
        "What is said?",
        "× ₂ € – ± ≤ θ “quoted”, $5 and #1, a_b [x]",
        "head other",
        "cell 3 %",
        *FOOTER.values(),
    ):
        assert words in text.replace("\N{NO-BREAK SPACE}", " "), words
    assert "secret_code" not in text
    assert "On screen" not in text
    plain = _executed(tmp_path / "b.ipynb", _shown(markdown=said))
    render.to_pdf(plain, tmp_path / "b.pdf", FOOTER)
    drawn, bare = (len(PdfReader(tmp_path / name).pages[0].get_contents().get_data()) for name in ("a.pdf", "b.pdf"))
    assert drawn > bare  # the figure's lines, as lines


def test_long_tables_run_over_pages_that_are_numbered(tmp_path: Path) -> None:
    rows = "\n".join(f"| row {n} | value |" for n in range(120))
    executed = _executed(tmp_path / "a.ipynb", _shown(markdown=f"| a | b |\n| --- | --- |\n{rows}"))
    render.to_pdf(executed, tmp_path / "a.pdf", FOOTER)
    pages = [page.extract_text() for page in PdfReader(tmp_path / "a.pdf").pages]
    assert len(pages) > 1
    for number, page in enumerate(pages, start=1):
        assert f"{number} / {len(pages)}" in page
    assert "row 0" in pages[0]
    assert "row 119" in pages[-1]


def test_a_document_needs_a_title_and_text_that_can_be_set(tmp_path: Path) -> None:
    untitled = _executed(tmp_path / "a.ipynb", title="no heading")
    with pytest.raises(NotebookError, match="has no title"):
        render.to_pdf(untitled, tmp_path / "a.pdf", FOOTER)
    lost = _executed(tmp_path / "b.ipynb", new_markdown_cell("![x](lost.svg)"))
    with pytest.raises(NotebookError, match="typst: file not found"):
        render.to_pdf(lost, tmp_path / "b.pdf", FOOTER)
    assert not list(tmp_path.glob("*.pdf"))


@pytest.mark.slow
def test_the_policy_report_becomes_a_document(tmp_path: Path) -> None:
    write(tmp_path, "pilot", frames())
    executed = tmp_path / REPORT.name
    render.execute(REPORT, executed, {"campaign": "pilot", "results": str(tmp_path)})
    about = policy.footer(policy.read_about(tmp_path / "pilot/tables/about.json"))
    render.to_pdf(executed, tmp_path / "report.pdf", about)
    text = _text(tmp_path / "report.pdf").replace("\N{NO-BREAK SPACE}", " ")
    headings = re.findall(r"^## (.+)$", "\n".join(c.source for c in nbformat.read(executed, 4).cells), re.MULTILINE)
    assert len(headings) > 10
    for heading in headings:
        assert heading in text
    assert "policy." not in text
    assert 4 < len(PdfReader(tmp_path / "report.pdf").pages) < 20


def test_the_index_leads_to_a_document_where_there_is_one(tmp_path: Path) -> None:
    for name in ("01_a", "02_b"):
        render.to_html(_executed(tmp_path / f"{name}.ipynb"), tmp_path / f"{name}.html", FOOTER)
    render.to_pdf(tmp_path / "02_b.ipynb", tmp_path / "02_b.pdf", FOOTER)
    render.index([tmp_path / "01_a.html", tmp_path / "02_b.html"], tmp_path / "index.html", "Pages", FOOTER)
    linked = re.findall(r'<a href="([^"]+)">', (tmp_path / "index.html").read_text(encoding="utf-8"))
    assert linked == ["01_a.html", "02_b.html", "02_b.pdf"]
