"""What the container tests share."""

from __future__ import annotations

import subprocess
from pathlib import Path

from dsa110_contimg.imaging.wsclean.runner import HostWSClean

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "container_engines.sh"
#: Lines for the end of the run: what was measured.
FIGURES: list[str] = []


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def containers(engine: str) -> list[str]:
    """Names of all containers."""
    listed = subprocess.run(
        [engine, "ps", "--all", "--format", "{{.Names}}"], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


def state(ms: Path) -> dict[Path, tuple[int, bytes]]:
    """Time and content of all files of a Measurement Set; locks do not count."""
    files = (f for f in sorted(ms.rglob("*")) if f.is_file() and f.name != "table.lock")
    return {f.relative_to(ms): (f.stat().st_mtime_ns, f.read_bytes()) for f in files}


def processes(word: str) -> list[str]:
    """Command lines of all processes that have a word in them."""
    listed = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if word in line]


def fake(folder: Path, text: str) -> HostWSClean:
    """A shell script in the place of WSClean."""
    made = folder / "wsclean"
    made.write_text(f"#!/bin/sh\n{text}\n")
    made.chmod(0o755)
    return HostWSClean(str(made))
