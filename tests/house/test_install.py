"""``requirements/install.sh`` picks torch's build by what the machine has, and never fails for want of an index."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "requirements" / "install.sh"

#: Stands in for Python: knows a version, reaches an index or not, and makes a venv whose pip prints its arguments.
PYTHON = """#!/bin/sh
case "$1 $2" in
    "-c "*) exit ${OLD:-0};;
    "--version "*) echo "Python 3.8.18";;
    "- "*) cat >/dev/null; exit ${UNREACHABLE:-0};;
    "-m venv") mkdir -p "$3/bin"; printf '#!/bin/sh\\necho "$@"\\n' > "$3/bin/python"; chmod +x "$3/bin/python";;
esac
"""
INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"


def _install(folder: Path, *, gpu: bool, **environment: str) -> subprocess.CompletedProcess[str]:
    bin_ = folder / "bin"
    bin_.mkdir()
    (bin_ / "python").write_text(PYTHON)
    (bin_ / "nvidia-smi").write_text(f"#!/bin/sh\n{'echo GPU 0: NVIDIA H200' if gpu else 'exit 9'}\n")
    for file in bin_.iterdir():
        file.chmod(0o755)
    path = f"{bin_}:{os.environ['PATH']}"
    return subprocess.run(
        [SCRIPT, "python", "venv", "dev,hub"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, **environment},
        check=False,
    )


@pytest.mark.parametrize(
    ("gpu", "unreachable", "with_index"),
    [
        (False, "0", True),
        (False, "1", False),
        (True, "0", False),
        (True, "1", False),
    ],
)
def test_the_build_of_torch(tmp_path: Path, gpu: bool, unreachable: str, with_index: bool) -> None:
    done = _install(tmp_path, gpu=gpu, UNREACHABLE=unreachable)
    assert done.returncode == 0, done.stderr
    pip = done.stdout.splitlines()[-1]
    assert pip.startswith("-m pip install ")
    assert "--constraint requirements/lock.txt" in pip
    assert pip.endswith("--editable .[dev,hub]")
    assert (INDEX in pip) is with_index


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    done = _install(tmp_path, gpu=False, OLD="1")
    assert done.returncode == 2
    assert "python is Python 3.8.18. Expected: Python 3.11 or newer." in done.stderr
