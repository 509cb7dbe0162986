"""Memory that a run needs at the least, held against what the machine has left."""

from __future__ import annotations

from pathlib import Path

from dsa110_contimg.errors import ResourceError
from dsa110_contimg.imaging.obs_context import BYTES_PER_VISIBILITY
from dsa110_contimg.visibilities import VisibilityReader
from dsa110_contimg.visibilities.reader import BYTES_PER_SAMPLE

__all__ = ["available_bytes", "require_available_memory"]

#: Images of single precision that are alive at the same time while one is CLEANed and compared.
IMAGES_ALIVE = 12
#: Per baseline, dump, polarisation and half: one complex and three real numbers of double precision.
BYTES_PER_STATISTIC = 40


def available_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> float:
    """Memory that can still be taken without swapping, bytes.

    The lesser of what the kernel estimates for the whole machine (MemAvailable,
    proc(5)) and what is left below the limits of the process's control groups,
    versions 1 and 2; file cache that can be dropped counts as free. Infinite
    where the kernel tells neither.

    Parameters
    ----------
    proc, cgroups : Path
        Where the kernel's files are mounted.
    """
    left = [float("inf")]
    for line in _lines(proc / "meminfo"):
        if line.startswith("MemAvailable:"):
            left.append(1024.0 * int(line.split()[1]))
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, name = line.split(":", 2)
        if not controllers:
            root, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            root = cgroups / "memory"
        else:
            continue
        # The limit of any group above holds too; within a container only the top may be visible.
        folder = root / name.strip("/")
        for group in (folder, *folder.parents):
            left.append(_left_in(group, *names))
            if group == root:
                break
    return min(left)


def _left_in(group: Path, limit: str, usage: str, cache: str) -> float:
    numbers = [int(word) for name in (limit, usage) for word in _lines(group / name) if word.isdecimal()]
    if len(numbers) < 2:
        return float("inf")
    droppable = [int(line.split()[1]) for line in _lines(group / "memory.stat") if line.split()[0] == cache]
    return max(0.0, float(numbers[0] - numbers[1] + sum(droppable)))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []


def require_available_memory(reader: VisibilityReader, pixels: int) -> None:
    """Raise ResourceError if a run needs more memory than there is.

    Parameters
    ----------
    reader : VisibilityReader
        The data.
    pixels : int
        Pixels of an image.
    """
    # The blocks, and the visibilities of the sky model and of one that is tried; or one block at a time.
    kept = reader.samples * (BYTES_PER_SAMPLE + 2 * 4) if reader.cached else 0
    baselines = len(reader.ms.antennas) * (len(reader.ms.antennas) - 1) // 2
    statistics = 4 * len(reader.selection.spw_ids) * reader.times.size * baselines * BYTES_PER_STATISTIC
    imaging = reader.samples * BYTES_PER_VISIBILITY // 2 + 4 * IMAGES_ALIVE * pixels
    needed, available = kept + statistics + imaging, available_bytes()
    if needed > available:
        keep_less = f" --memory-gb below {kept / 1e9:.2g} (blocks are read again then)," if kept else ""
        raise ResourceError(
            f"out of memory: at least {needed / 1e9:.3g} GB needed, {available / 1e9:.3g} GB available",
            reader.ms.path,
            f"free some,{keep_less} lower --size or select spectral windows with --spw",
        )
