"""A command that runs for a stated time: asked to finish, then ended with all it started."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_campaign import process_is_gone, wait_for

from inference_energy import budget, cli

#: Like Snakemake: starts a child, ignores SIGTERM until that has ended, and then says so in its exit status.
LIKE_SNAKEMAKE = """
import signal, subprocess, sys
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: None)
child = subprocess.Popen(["sh", "-c", "sleep %s & wait"])
Path(sys.argv[1]).write_text(str(child.pid))
sys.exit(7 if child.wait() == 0 else 9)
"""


def _command(tmp_path: Path, seconds: float) -> list[str]:
    return [sys.executable, "-c", LIKE_SNAKEMAKE % seconds, str(tmp_path / "pid")]


def test_a_command_that_ends_in_time_keeps_its_status(tmp_path: Path) -> None:
    assert budget.run(_command(tmp_path, 0.1), 30.0) == budget.Ended(7, in_time=True, cut_off=False)


@pytest.mark.parametrize("grace_s", [None, 30.0])
def test_what_is_in_progress_is_finished(tmp_path: Path, grace_s: float | None) -> None:
    assert budget.run(_command(tmp_path, 1.5), 0.7, grace_s) == budget.Ended(7, in_time=False, cut_off=False)


def test_after_the_grace_all_of_it_is_ended(tmp_path: Path) -> None:
    started_s = time.monotonic()
    ended = budget.run(_command(tmp_path, 60), 0.7, 0.3)
    assert time.monotonic() - started_s < 0.7 + 0.3 + 2
    assert ended == budget.Ended(9, in_time=False, cut_off=True)  # it saw its child fail, and ended by itself
    assert process_is_gone(int(wait_for(tmp_path / "pid")))


def test_a_command_that_does_not_notice_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    started_s = time.monotonic()
    ended = budget.run([sys.executable, "-c", stubborn], 0.5, 0.1)
    assert ended.status == -9
    assert time.monotonic() - started_s < 0.5 + 0.1 + 2


SNAKEFILE = """
rule all:
    input: "one.txt", "two.txt"

rule sleep:
    output: "{name}.txt"
    shell: "echo $$ >> pids.txt; sleep 60 & echo $! >> pids.txt; wait; touch {output}"
"""


@pytest.mark.slow
def test_snakemake_that_is_cut_off_leaves_no_process_no_file_and_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    monkeypatch.chdir(tmp_path)
    budget_s, grace_s = 5.0, 1.0
    started_s = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "--budget-s", str(budget_s), "--grace-s", str(grace_s), "--", "--cores", "1"])
    took_s = time.monotonic() - started_s
    assert ended.value.code in (0, None)
    said = capfd.readouterr().err
    assert "5 s are spent: ended what was in progress." in said
    assert said.endswith("The same command goes on\n")
    assert budget_s + grace_s <= took_s < budget_s + grace_s + budget.NOTICE_S + 1
    pids = (tmp_path / "pids.txt").read_text().split()
    assert len(pids) == 2, "one job was in progress, and no other was started"
    assert all(process_is_gone(int(pid)) for pid in pids)
    assert not list(tmp_path.glob("o*.txt")) + list(tmp_path.glob("t*.txt"))
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run"]
    planned = subprocess.run(command, capture_output=True, text=True, check=False)
    assert planned.returncode == 0, planned.stderr
    assert re.search(r"^sleep +2$", planned.stdout + planned.stderr, re.MULTILINE)
    touched = subprocess.run([*command[:-1], "--touch"], capture_output=True, text=True, check=False)
    assert touched.returncode == 0, touched.stderr  # a lock would stop it
