"""Rules for all tests: what needs a GPU says so, and in CI nothing else may be skipped."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator

import pytest


def _has_gpu() -> bool:
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return False
    return listed.stdout.startswith("GPU ")


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true"}


def pytest_configure() -> None:
    """Let tests interrupt what they start: a shell's background jobs ignore SIGINT, and so would all their children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:  # workers measure side by side: each has locks of its own
        os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix=f"{worker}-")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The campaign that tests/campaign looks at; without it, synthetic tables."""
    parser.addoption("--campaign-folder", default=None, help="results/<campaign>, for tests/campaign")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked gpu where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_gpu():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU here"))


def pytest_collection_finish() -> None:
    """Keep what was imported out of later garbage collections: statsmodels asks for a whole one in each correction."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Turn a skip into a failure in CI, unless the test is marked gpu: a skip there hides a broken set-up."""
    report = yield
    if _in_ci() and report.skipped and not hasattr(report, "wasxfail") and not item.get_closest_marker("gpu"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """Turn a skipped module into a failure in CI."""
    report = yield
    if _in_ci() and report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"module skipped in CI: {report.longrepr}"
    return report
