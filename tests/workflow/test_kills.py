"""Nothing is lost over 50 kills at random instants: real runs of a tiny model on this machine's CPU.

Several campaigns are measured at once, each with locks and a forking parent of its own. Whoever
takes part in a run is killed in turn (the command that asked for it, the measuring process, the
parent it was forked from), by each of three signals in turn, at instants drawn with a fixed seed.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tiny_campaign import CLI, TinyCampaign

from inference_energy.design import expand
from inference_energy.measure import attempts
from inference_energy.records import read_record

pytestmark = pytest.mark.slow
N_LANES, N_KILLS = 10, 50
#: Longer than a run takes undisturbed, so that some kills come after its end or between two runs.
LATEST_S = 12.0
#: Runs wait most of the time, or the lanes would slow one another down: they share two cores.
SPARING = {"traffic": "constant", "delay_min_s": 0.3, "delay_max_s": 0.3}
VICTIMS = ("command", "measuring", "command", "measuring", "command", "measuring", "parent")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class Lane:
    """One campaign, measured and killed beside the others."""

    def __init__(self, number: int) -> None:
        self.tmp = Path(tempfile.mkdtemp(prefix=f"ie-{number}-"))
        quick = {"idle_s": 0.05, "idle_loaded_s": 0.05, "lock_wait_s": 30.0}
        self.tiny = TinyCampaign(self.tmp / "results", settings=[SPARING], **quick)
        self.runs = expand(self.tiny.resolved)
        self.environment = {**os.environ, "TMPDIR": str(self.tmp)}
        self.environment.pop("INFERENCE_ENERGY_OWNER_PID", None)
        self.random = random.Random(number)
        self.output = (self.tmp / "output.txt").open("wb")
        self.seen: dict[Path, bytes] = {}
        self.n_kills = 0

    def start(self) -> subprocess.Popen[bytes]:
        """Ask for the first run that has no record (for the last, if all have one)."""
        missing = [run for run in self.runs if not self._record(run.run_id).exists()]
        command = self.tiny.measure_command((missing or self.runs)[0].run_id)
        return subprocess.Popen(command, env=self.environment, stdout=self.output, stderr=subprocess.STDOUT)

    def _record(self, run_id: str) -> Path:
        return self.tiny.folder / "records" / f"{run_id}.json"

    def parents(self) -> list[psutil.Process]:
        """The process that this lane's runs are forked from, if there is one."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "serve" in words and any(word.startswith(f"{self.tmp}/") for word in words):
                found.append(process)
        return found

    def kill(self, process: subprocess.Popen[bytes], victim: str, number: signal.Signals) -> None:
        """Kill one of those who take part; the command if the wanted one is not there at this instant."""
        parents = self.parents()
        pids = {
            "command": [process.pid],
            "parent": [parent.pid for parent in parents],
            "measuring": [child.pid for parent in parents for child in parent.children()],
        }[victim]
        try:
            os.kill((pids or [process.pid])[0], number)
        except ProcessLookupError:  # it ended just now: an instant like any other
            return
        self.n_kills += 1

    def disturb(self, n_kills: int) -> None:
        """Measure while killing, and see after each kill that earlier records are as they were."""
        process = self.start()
        turns = itertools.cycle(itertools.product(VICTIMS, SIGNALS))
        for victim, number in itertools.islice(turns, self.random.randrange(21), None):
            if self.n_kills == n_kills:
                break
            try:
                process.wait(self.random.uniform(0, LATEST_S))
                process = self.start()
                continue
            except subprocess.TimeoutExpired:
                self.kill(process, victim, number)
            self.require_unchanged()
        process.kill()
        process.wait()

    def require_unchanged(self) -> None:
        """Every record that was seen is there, byte for byte."""
        found = {path: path.read_bytes() for path in self.tiny.folder.glob("records/*/*.json")}
        assert {path: found.get(path) for path in self.seen} == self.seen
        self.seen = found

    def finish(self) -> None:
        """One undisturbed call a run."""
        for run in self.runs:
            command = self.tiny.measure_command(run.run_id)
            done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        self.require_unchanged()

    def close(self) -> None:
        """End the parent and remove everything."""
        subprocess.run([*CLI, "launcher", "stop"], env=self.environment, capture_output=True, check=False)
        for parent in self.parents():
            parent.kill()
        self.output.close()
        shutil.rmtree(self.tmp, ignore_errors=True)


@pytest.fixture
def lanes() -> Iterator[list[Lane]]:
    """Campaigns that share nothing but the machine."""
    made = [Lane(number) for number in range(N_LANES)]
    yield made
    for lane in made:
        lane.close()


def test_nothing_is_lost_over_fifty_kills(lanes: list[Lane]) -> None:
    def live(lane: Lane) -> None:
        lane.disturb(N_KILLS // N_LANES)
        lane.finish()

    with ThreadPoolExecutor(N_LANES) as pool:
        list(pool.map(live, lanes))
    assert sum(lane.n_kills for lane in lanes) == N_KILLS
    for lane in lanes:
        _require_whole(lane)


def _require_whole(lane: Lane) -> None:
    """One valid record a run, no other file beside it, nothing temporary, no lock held, nobody at work."""
    folder = lane.tiny.folder
    found = {read_record(path).run_id: read_record(path) for path in (folder / "records").rglob("*") if path.is_file()}
    assert set(found) == {run.run_id for run in lane.runs}
    assert [name for name in lane.tiny.files() if name.endswith((".tmp", ".reason.json"))] == []
    for run in lane.runs:
        n_failed, record = len(attempts.read(attempts.log_path(folder, run))), found[run.run_id]
        if record.status == "ok":
            assert record.n_attempts == n_failed + 1
            assert sum(interval.phase == "window" for interval in record.intervals) == 5
        else:
            assert (record.status, record.n_attempts, n_failed) == ("failed", 3, 3)
    deadline_s = time.monotonic() + 5
    while [child for parent in lane.parents() for child in parent.children()]:
        assert time.monotonic() < deadline_s, "a measuring process is still there"
        time.sleep(0.05)
    sockets = {path.with_suffix(".lock") for path in lane.tmp.glob("*.sock")}  # the parent holds these
    locks = set(lane.tmp.glob("*.lock")) - sockets
    assert locks
    for path in locks:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
