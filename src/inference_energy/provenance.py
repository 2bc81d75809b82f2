"""Where numbers come from: commit, source, versions, machine."""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def now_utc() -> str:
    """The time now as ISO 8601 with milliseconds, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def version_of(package: str) -> str | None:
    """Installed version of `package`, or None; imports nothing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout this package runs from, and whether it differs from it.

    Returns
    -------
    (str or None, bool or None)
        ``(None, None)`` outside a git checkout. A copy of a checkout without git may say its
        commit in the environment variable ``INFERENCE_ENERGY_COMMIT``.
    """
    given = os.environ.get("INFERENCE_ENERGY_COMMIT")
    if given:
        return given, None
    git = ["git", "-C", str(PACKAGE)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return head, bool(status.strip())


def notes(root: Path) -> list[dict[str, str]]:
    """Every ``ASSUME:`` and ``SOURCE:`` comment in the sources and the configuration below `root`, and its file.

    A note ends at a line that is no comment, at an empty one, or at the next note. Lines are not
    numbered: an edit elsewhere in a file changes no note, and so repeats no page.

    Returns
    -------
    list of dict
        ``kind``, ``where`` (path below `root`) and ``text``, as ``context.json`` keeps them.
    """
    found: list[dict[str, str]] = []
    for path in sorted([*(root / "config").rglob("*.yaml"), *(root / "src").rglob("*.py")]):
        open_note: dict[str, str] | None = None
        for line in path.read_text(encoding="utf-8").splitlines():
            begun = re.search(r"#\s*(ASSUME|SOURCE):\s*(.+)", line)
            goes_on = re.fullmatch(r"\s*#:?\s*(\S.*)", line)
            if begun:
                open_note = {"kind": begun[1], "where": path.relative_to(root).as_posix(), "text": begun[2].strip()}
                found.append(open_note)
            elif goes_on and open_note:
                open_note["text"] += " " + goes_on[1].strip()
            else:
                open_note = None
    return found


@functools.cache
def source_sha256() -> str:
    """Hash over every source file of the package."""
    return _hash_files(sorted(PACKAGE.rglob("*.py")))


def digest(module: str) -> str:
    """Hash over one module of the package and all it imports from the package.

    Snakemake does not see edits in imported modules; analysis rules carry this as a parameter.

    Parameters
    ----------
    module : str
        Dotted name below the package, such as ``"analyse.fold_range"``.
    """
    seen: set[Path] = set()
    queue = [_module_path(f"inference_energy.{module}")]
    while queue:
        path = queue.pop()
        if path is None or path in seen:
            continue
        seen.add(path)
        queue += [_module_path(name) for name in _imports(path)]
    return _hash_files(sorted(seen))[:16]


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("inference_energy"):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("inference_energy")}
    return frozenset(names)


def _module_path(name: str) -> Path | None:
    base = PACKAGE.parent.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


def _hash_files(paths: list[Path]) -> str:
    digest_all = hashlib.sha256()
    for path in paths:
        digest_all.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest_all.hexdigest()


def command() -> str:
    """The command line of this process."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def short_hash(text: str) -> str:
    """First 12 hex digits of SHA-256: enough to tell devices apart, too few to name them."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def host_hash() -> str:
    """Hash of the host's identity."""
    machine_id = Path("/etc/machine-id")
    identity = machine_id.read_text().strip() if machine_id.exists() else ""
    return short_hash(f"{identity}/{platform.node()}/{boot_id()}")


def boot_id() -> str:
    """Identity of this boot of the machine; empty where the system has none."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def cpu_name() -> str:
    """Marketing name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
