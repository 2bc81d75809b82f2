"""Where numbers come from: notes gathered from comments."""

from __future__ import annotations

from pathlib import Path

from inference_energy import provenance


def test_notes_are_gathered_with_their_file(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "b.yaml").write_text("# SOURCE: a table\nx: 1\n", encoding="utf-8")
    (tmp_path / "src" / "a.py").write_text(
        "x = 1  # ASSUME: rest power is idle power,\n# as seen in the traces.\ny = 2\n# no note\n# SOURCE: a paper\n",
        encoding="utf-8",
    )
    found = provenance.notes(tmp_path)
    assert found == [
        {"kind": "SOURCE", "where": "config/b.yaml", "text": "a table"},
        {"kind": "ASSUME", "where": "src/a.py", "text": "rest power is idle power, as seen in the traces."},
        {"kind": "SOURCE", "where": "src/a.py", "text": "a paper"},
    ]
    with (tmp_path / "src" / "a.py").open("a") as source:
        source.write("z = 3  # an edit elsewhere\n")
    assert provenance.notes(tmp_path) == found
