"""A campaign of the tiny model on this machine's CPU, with windows as short as an estimate allows."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import synthetic

from inference_energy.design import expand
from inference_energy.measure.session import Request

HARDWARE_YAML = synthetic.REPOSITORY / "config" / "hardware.yaml"
MEASUREMENT = {
    "device": "cpu",
    "idle_s": 0.2,
    "idle_loaded_s": 0.1,
    "window_min_s": 2.0,
    "lock_wait_s": 0.0,
    "warm_up": {"n_agree": 2, "agreement_fraction": 0.9},
}
#: The command line in a process of its own.
CLI = [sys.executable, "-m", "inference_energy.cli"]


class TinyCampaign:
    """One setting in two cycles, or those of `settings`; its folder lies below `results`.

    Attributes
    ----------
    file : Path
        The resolved campaign.
    run_id : str
        Its first run.
    """

    def __init__(
        self, results: Path, name: str = "tiny", *, settings: Sequence[dict[str, Any]] = ({},), **measurement: Any
    ) -> None:
        fixed = {"batch_size": 1, "n_input_tokens": 8, "n_output_tokens": 8}
        study = {"question": "Does it work?", "settings": [fixed | levels for levels in settings]}
        self.resolved = synthetic.resolved_campaign(
            "local", name=name, studies={"faults": study}, measurement={**MEASUREMENT, **measurement}
        )
        self.results, self.folder = results, results / name
        self.file = self.folder / "campaign.yaml"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file.write_text(self.resolved.dump(), encoding="utf-8")
        self.run_id = expand(self.resolved)[0].run_id
        self.record = self.folder / "records" / f"{self.run_id}.json"

    def request(self, action: Literal["measure", "qualify"] = "measure", run_id: str | None = None) -> Request:
        """What a fresh process is asked for."""
        return Request(
            action=action,
            campaign_file=str(self.file),
            run_id=(run_id or self.run_id) if action == "measure" else "",
            output=str(self.record if action == "measure" else self.folder / "qualification"),
            hardware_yaml=str(HARDWARE_YAML),
            launcher="fork",
            started_s=time.monotonic(),
        )

    def measure_command(self, run_id: str | None = None) -> list[str]:
        """``inference-energy measure`` of a run."""
        options = ["--results", str(self.results), "--config-dir", str(synthetic.REPOSITORY / "config")]
        return [*CLI, "measure", str(self.file), *options, "--run", run_id or self.run_id]

    def files(self) -> set[str]:
        """Every file below the campaign's folder."""
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}


def process_is_gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether a process ends in time."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        status = Path(f"/proc/{pid}/stat")
        try:
            if status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def wait_for(path: Path, within_s: float = 30.0) -> str:
    """Text of a file as soon as there is some."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        if path.exists() and (text := path.read_text(encoding="utf-8")):
            return text
        time.sleep(0.02)
    raise AssertionError(f"{path} did not come within {within_s} s")


def holder_of_the_device(tmp: Path, run: str | None = None, within_s: float = 30.0) -> dict[str, Any]:
    """What the device's lock in `tmp` says of who holds it, or held it last; with `run`, once that is the holder."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        # One lock says whose turn it is to look and names nobody, and a new holder's first act is to empty the other.
        told = [text for path in tmp.glob("inference-energy-????????????.lock") if (text := path.read_text())]
        if told:
            (text,) = told
            holder: dict[str, Any] = json.loads(text)
            if run in (None, holder["run"]):
                return holder
        time.sleep(0.02)
    raise AssertionError(f"nobody{f' called {run}' if run else ''} held the device within {within_s} s")


def children_of(pid: int) -> list[int]:
    """Process ids of a process's children, at any depth."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
