"""Notebooks executed and made into pages that need no network; the same inputs give the same bytes."""

from __future__ import annotations

import ast
import base64
import html as markup
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

from inference_energy.errors import NotebookError, did_you_mean

TEMPLATE = Path(__file__).parent / "templates" / "page.html"
PRINT_TEMPLATE = TEMPLATE.with_name("report.typ")
SCREEN_ONLY = "screen-only"  # tag of cells that a document for print leaves out
TOGGLE = '<input type="checkbox" id="show-code" aria-label="Show code"><label class="toggle" for="show-code"></label>'


def execute(notebook: Path, output: Path, parameters: Mapping[str, Any], cwd: Path | None = None) -> None:
    """Run `notebook` with `parameters` and write the executed copy, whole or not at all.

    Parameters
    ----------
    notebook : Path
        With one cell tagged ``parameters``.
    output : Path
        The executed copy.
    parameters : mapping
        Values that replace those of the tagged cell.
    cwd : Path, optional
        Folder the kernel works in, to which relative paths in `parameters` refer; the notebook's
        own unless given, as in JupyterLab.

    Raises
    ------
    NotebookError
        If a parameter is unknown, or a cell fails: names notebook, cell and exception.
    """
    _check_parameters(notebook, parameters)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a kernel's noise about frozen modules
    import nbformat
    import papermill
    from traitlets.config import Config

    # Kernels that start at the same moment pick the same ports now and then; sockets in a folder cannot meet.
    sockets = tempfile.TemporaryDirectory(prefix="kernel-")
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.ipynb")
    try:
        papermill.execute_notebook(
            notebook,
            temporary,
            parameters=dict(parameters),
            cwd=cwd or notebook.parent,
            progress_bar=False,
            log_output=False,
            extra_arguments=["--log-level=ERROR"],  # or each kernel warns that it talks over the loopback device
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets.name}/socket"}}),
        )
        executed = nbformat.read(temporary, as_version=4)
        _normalise(executed)
        nbformat.write(executed, temporary)
        temporary.replace(output)
    except papermill.PapermillExecutionError as error:
        source = " ".join(str(error.source).split())[:80]
        number = error.cell_index + (0 if parameters else 1)  # papermill adds a cell for given parameters
        raise NotebookError(
            f"{notebook}: cell {number} ({source})",
            f"{error.ename}: {error.evalue}",
            "",
            "Open it with make lab and run all cells",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
        sockets.cleanup()


def to_html(executed: Path, html: Path, footer: Mapping[str, str]) -> None:
    """Make the executed notebook a page: self-contained, code hidden behind one toggle, footer at the end.

    Parameters
    ----------
    executed : Path
        What :func:`execute` wrote.
    html : Path
        The page.
    footer : mapping
        Terms and what they say: campaign, commit, versions.

    Raises
    ------
    NotebookError
        If the notebook has no title, or the page would load something from elsewhere.
    """
    import nbformat
    from nbconvert.exporters import HTMLExporter

    notebook = nbformat.read(executed, as_version=4)
    exporter = HTMLExporter(
        template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True, exclude_anchor_links=True
    )
    body, _ = exporter.from_notebook_node(notebook)
    _write(html, _page(_title(notebook, executed), body, footer, toggle=TOGGLE))


def to_pdf(executed: Path, pdf: Path, footer: Mapping[str, str]) -> None:
    """Make the executed notebook a document for print: text, tables and figures without code.

    Fonts are those that typst and matplotlib bring along, and no date is kept: the same notebook
    gives the same bytes on every machine. Cells tagged ``screen-only`` are left out.

    Parameters
    ----------
    executed : Path
        What :func:`execute` wrote.
    pdf : Path
        The document, A4.
    footer : mapping
        Terms and what they say: campaign, commit, versions.

    Raises
    ------
    NotebookError
        If the notebook has no title, or its text cannot be set.
    """
    import matplotlib as mpl
    import nbformat
    import pypandoc
    import typst

    notebook = nbformat.read(executed, as_version=4)
    with tempfile.TemporaryDirectory(prefix="pdf-") as name:
        folder = Path(name)
        text = re.sub(r"(?<=\d) (?=%|×)", "\u00a0", "\n\n".join(_printed(notebook, folder)))
        page = Template(PRINT_TEMPLATE.read_text(encoding="utf-8")).substitute(
            title=_typst_text(_title(notebook, executed)),
            campaign=_typst_text(footer.get("Campaign", "")),
            body=pypandoc.convert_text(text, "typst", format="gfm-tex_math_dollars-raw_html"),
            footer="\n\n".join(f"*#{_typst_text(term)}* #{_typst_text(words)}" for term, words in footer.items()),
        )
        source = folder / "page.typ"
        source.write_text(page, encoding="utf-8")
        try:
            made = typst.compile(
                source,
                format="pdf",
                font_paths=[Path(mpl.get_data_path()) / "fonts" / "ttf"],
                ignore_system_fonts=True,
                timestamp=0,
            )
        except typst.TypstError as error:
            raise NotebookError(
                f"{executed}, as a document for print",
                f"typst: {error.message}",
                "text that pandoc and typst can set",
                "Look at the cell whose text the message quotes",
            ) from error
    _write(pdf, made)


def index(pages: Iterable[Path], html: Path, title: str, footer: Mapping[str, str]) -> None:
    """A page that links `pages` in the given order by their headings, with a PDF of the same name where there is one.

    Raises
    ------
    NotebookError
        If a page has no heading.
    """
    items = []
    for page in pages:
        found = re.search(r"<h1\b[^>]*>(.*?)</h1>", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        if not found:
            raise NotebookError(str(page), "has no heading", "a page that this package made")
        target = markup.escape(os.path.relpath(page, html.parent).replace(os.sep, "/"))
        printed = page.with_suffix(".pdf").exists()
        also = f' (<a href="{target.removesuffix(".html")}.pdf">PDF</a>)' if printed else ""
        items.append(f'<li><a href="{target}">{found[1]}</a>{also}</li>')
    listing = f'<h1>{markup.escape(title)}</h1>\n<nav aria-label="Pages"><ul>\n' + "\n".join(items) + "\n</ul></nav>"
    _write(html, _page(title, listing, footer, toggle=""))


def check_stripped(notebook: Path) -> None:
    """Refuse a notebook that carries outputs, execution counts, or metadata of a run.

    Raises
    ------
    NotebookError
        Names the first cell at fault.
    """
    import nbformat

    content = nbformat.read(notebook, as_version=4)
    for number, cell in enumerate(content.cells, start=1):
        if cell.cell_type != "code":
            continue
        if cell.outputs or cell.execution_count is not None:
            raise NotebookError(
                f"{notebook}: cell {number}",
                "carries outputs or an execution count",
                "a stripped cell",
                f"Run: nbstripout {notebook}",
            )
        if "execution" in cell.metadata or "papermill" in cell.metadata:
            raise NotebookError(
                f"{notebook}: cell {number}",
                "carries metadata of a run",
                "a stripped cell",
                f"Run: nbstripout {notebook}",
            )


def parameter_names(notebook: Path) -> list[str]:
    """Names assigned in the one cell tagged ``parameters``.

    Raises
    ------
    NotebookError
        If the file is no notebook or has not exactly one such cell.
    """
    import nbformat

    try:
        content = nbformat.read(notebook, as_version=4)
    except FileNotFoundError:
        raise NotebookError(str(notebook), "no such notebook", "", "Check the name") from None
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise NotebookError(str(notebook), f"is no notebook: {str(error).splitlines()[0]}", "an .ipynb file") from error
    tagged = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise NotebookError(str(notebook), f"{len(tagged)} cells are tagged 'parameters'", "exactly one")
    targets: list[ast.expr] = []
    for statement in ast.parse(tagged[0].source).body:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    return [target.id for target in targets if isinstance(target, ast.Name)]


def loaded_tables(notebook: Path) -> list[str] | None:
    """Names of the tables that a notebook's ``policy.load(results, campaign, [...])`` asks for; None: all.

    The workflow makes a page again when one of these changes, and reads all notebooks at every
    start, so this looks at the source only.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        source = "".join(cell["source"])
        for node in ast.walk(ast.parse(source)) if cell["cell_type"] == "code" and "policy.load(" in source else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "policy.load" and len(node.args) == 3:
                return [str(name) for name in ast.literal_eval(node.args[2])]
    return None


def _check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    known = parameter_names(notebook)
    for name in parameters:
        if name not in known:
            raise NotebookError(
                str(notebook),
                f"{name!r} is not a parameter of this notebook. {did_you_mean(name, known)}",
                "",
                "Use a known name, or add it to the cell tagged 'parameters'",
            )


def _normalise(notebook: Any) -> None:
    """Take out what differs between two runs: times, paths, process numbers and chance."""
    notebook.metadata.pop("papermill", None)
    for number, cell in enumerate(notebook.cells):
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = f"injected-parameters-{number}"


def _title(notebook: Any, path: Path) -> str:
    for cell in notebook.cells:
        heading = re.match(r"#\s+(.+)", cell.source) if cell.cell_type == "markdown" else None
        if heading:
            return heading[1].strip()
    raise NotebookError(str(path), "has no title", "a first markdown cell that starts with '# '")


def _printed(notebook: Any, folder: Path) -> Iterator[str]:
    """What a reader sees of every cell, as Markdown; figures are written to `folder`."""
    n_figures = 0
    for cell in notebook.cells:
        if SCREEN_ONLY in cell.metadata.get("tags", ()):
            continue
        if cell.cell_type == "markdown":
            yield cell.source
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            image = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', data.get("text/html", ""))
            if image:
                n_figures += 1
                (folder / f"figure-{n_figures}.svg").write_bytes(base64.b64decode(image[1]))
                alt = re.search(r'alt="([^"]*)"', data["text/html"])
                words = re.sub(r"[\[\]]", "", markup.unescape(alt[1])) if alt else ""
                yield f"![{words}](figure-{n_figures}.svg)"
            elif "text/markdown" in data:
                yield data["text/markdown"]


def _typst_text(words: str) -> str:
    """`words` as a typst string."""
    return json.dumps(words, ensure_ascii=False)


def _page(title: str, body: str, footer: Mapping[str, str], toggle: str) -> str:
    from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

    terms = "\n".join(
        f"<dt>{markup.escape(term)}</dt><dd>{markup.escape(words)}</dd>" for term, words in footer.items()
    )
    campaign = f" – {footer['Campaign']}" if "Campaign" in footer else ""
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=markup.escape(title + campaign),
        code_style=HtmlFormatter(style="default").get_style_defs(".highlight"),
        toggle=toggle,
        body=body,
        footer=terms,
    )
    loaded = re.search(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)\s*=\s*[\"']?(?!data:)([^\"'>\s]+)", page)
    if loaded:
        raise NotebookError(title, f"the page would load {loaded[1]}", "a page that needs nothing from elsewhere")
    return page


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
