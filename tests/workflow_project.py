"""A copy of the project in a folder of its own, as a fresh clone, and Snakemake in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SMOKE = Path("tests") / "workflow" / "smoke.yaml"
PARTS = ("workflow", "config", "notebooks", "resources", "tests", "src", "pyproject.toml")


class Project:
    """The project in `folder`, without any results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in PARTS:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy(source, folder / name)
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "src"),  # its own source, which a test may edit
        }
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or each of its many processes compiles all of it again

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start `command` in a session of its own; what it prints goes to `output.txt`."""
        with (self.folder / "output.txt").open("wb") as output:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What the last command printed."""
        return (self.folder / "output.txt").read_text()

    def snakemake(self, *arguments: str, status: int = 0) -> str:
        """What Snakemake prints, once it has ended with `status`."""
        process = self.start("snakemake", *arguments)
        assert process.wait(timeout=600) == status, self.output
        return self.output

    def campaign(self, name: str, **changes: Any) -> None:
        """Write `config/campaigns/<name>.yaml`: the smoke campaign with other values of some keys."""
        content = yaml.safe_load((ROOT / SMOKE).read_text())
        content["campaign"] |= {"name": name, **changes}
        (self.folder / "config" / "campaigns" / f"{name}.yaml").write_text(yaml.safe_dump(content))


def planned(output: str) -> dict[str, int]:
    """How many jobs of each rule Snakemake planned, from its table; empty if there is nothing to do."""
    if "Nothing to be done" in output:
        return {}
    table = output.split("Job stats:\n", 1)[1].split("\n\n", 1)[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE) if name != "total"}
