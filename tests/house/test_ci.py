"""The rules of ``tests/conftest.py`` hold: in CI a skip fails, except for tests that need a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

TESTS = """
import pytest

def test_passes(): pass

@pytest.mark.skip(reason="lazy")
def test_is_skipped(): pass

@pytest.mark.gpu
def test_needs_a_gpu(): pass

@pytest.mark.xfail(reason="known")
def test_is_known_to_fail(): raise ValueError
"""


def _run(folder: Path, ci: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    empty = folder / "bin"
    empty.mkdir(exist_ok=True)
    environment = {**os.environ, "CI": ci, "PATH": str(empty), "PYTEST_ADDOPTS": ""}  # no nvidia-smi in this PATH
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )


def test_a_skip_fails_in_ci_only(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    at_home, in_ci = _run(tmp_path, ""), _run(tmp_path, "true")
    assert at_home.returncode == 0, at_home.stdout
    assert "1 passed, 2 skipped, 1 xfailed" in at_home.stdout
    assert in_ci.returncode == 1
    assert "1 passed, 1 skipped, 1 xfailed, 1 error" in in_ci.stdout  # skipping marks act before the test
    assert "lazy" in in_ci.stdout


def test_a_skipped_module_fails_in_ci(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import pytest\npytest.importorskip('no_such_package')\n")
    assert "1 skipped" in _run(tmp_path, "").stdout
    assert _run(tmp_path, "true").returncode != 0


def test_ci_calls_the_readmes_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "export CI=true" in script.read_text()
    assert "\nmake test\n" in script.read_text()
    assert "make test" in (ROOT / "README.md").read_text()
