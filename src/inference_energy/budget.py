"""Run a command for a stated time: then ask it to finish, then end what is left of it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

#: Says to whatever the command starts when to start nothing more, on the day's clock.
STOP_AT = "INFERENCE_ENERGY_STOP_AT_S"
#: How long the command may take to notice that what it started was ended.
NOTICE_S = 1.5


@dataclass(frozen=True)
class Ended:
    """How the command ended.

    Attributes
    ----------
    status : int
        Its exit status.
    in_time : bool
        Whether it ended before the budget was spent.
    cut_off : bool
        Whether what it had in progress was ended with it.
    """

    status: int
    in_time: bool
    cut_off: bool


def run(command: Sequence[str], budget_s: float, grace_s: float | None = None) -> Ended:
    """Run `command` for `budget_s` seconds, then let it finish what is in progress for `grace_s` more.

    Parameters
    ----------
    command : sequence of str
        A command that starts nothing new after SIGTERM and finishes what it has started, as Snakemake does.
    budget_s : float
        Seconds until it gets SIGTERM.
    grace_s : float, optional
        Seconds until what it started is killed; without it, this waits as long as it takes.

    Raises
    ------
    KeyboardInterrupt
        Once the command has ended: the terminal interrupted it too.
    """
    process = subprocess.Popen(command, env={**os.environ, STOP_AT: str(time.time() + budget_s)})
    try:
        try:
            return Ended(process.wait(timeout=budget_s), in_time=True, cut_off=False)
        except subprocess.TimeoutExpired:
            process.terminate()
        try:
            return Ended(process.wait(timeout=grace_s), in_time=False, cut_off=False)
        except subprocess.TimeoutExpired:
            return Ended(_cut_off(process), in_time=False, cut_off=True)
    except KeyboardInterrupt:
        process.wait()
        raise


def stop_at_s() -> float | None:
    """When a process that a budget runs should start nothing more; None without a budget."""
    told = os.environ.get(STOP_AT)
    return None if told is None else float(told)


def _cut_off(process: subprocess.Popen[bytes]) -> int:
    """Kill all that `process` started, then the process itself unless it ends by itself meanwhile.

    The children first: their parent sees them fail, and takes its own locks away.
    """
    try:
        started = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        started = []
    for child in started:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    try:
        return process.wait(timeout=NOTICE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
