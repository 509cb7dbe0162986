"""Memory that a run needs at the least, held against what the machine has left."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

from dsa110_contimg.calibration.bandpass import SUB_BANDS
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import ResourceError
from dsa110_contimg.imaging.obs_context import BYTES_PER_VISIBILITY
from dsa110_contimg.selfcal.averaged_data import (
    BYTES_PER_BIN,
    BYTES_PER_SCATTERED,
    Averaging,
    averaged_samples,
)
from dsa110_contimg.selfcal.split_statistics import SPLIT_SUMS
from dsa110_contimg.visibilities import VisibilityReader
from dsa110_contimg.visibilities.reader import BYTES_PER_SAMPLE

__all__ = ["available_bytes", "require_available_memory", "return_free_memory", "sub_bands_of_window"]

#: Images of single precision that are alive at the same time while one is CLEANed and compared.
IMAGES_ALIVE = 12
#: Per baseline, dump, polarisation and half: one complex and three real numbers of double precision.
BYTES_PER_STATISTIC = 40
#: Statistics by sub-band that nobody asked for take no more than this part of `memory_gb`.
UNASKED_SHARE = 0.25
#: Statistics by sub-band, and what is summed of them while they are looked at.
SUB_BAND_COPIES = 1.5


def return_free_memory() -> None:
    """Give back what was freed to the machine, where the C library can.

    That of glibc keeps blocks below 32 MB for itself, and half a gigabyte of them before an image.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


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


def sub_bands_of_window(reader: VisibilityReader, config: SelfCalConfig) -> int:
    """Parts of each spectral window that are kept apart to look for delays and a bandpass.

    Parameters
    ----------
    reader : VisibilityReader
        The data.
    config : SelfCalConfig
        Options `spectral` and, where that is auto, `memory_gb`, which bounds the statistics.

    Returns
    -------
    int
        At least one; zero if nothing is looked for, or the windows themselves are too much.
    """
    if config.spectral == "off" or not config.use_nvss_seeding:
        return 0
    windows = [reader.ms.spectral_window(s) for s in reader.selection.spw_ids]
    parts = min(-(-SUB_BANDS // len(windows)), min(w.freq_hz.size for w in windows))
    if config.spectral == "auto":
        most = UNASKED_SHARE * config.memory_gb * 1e9 / _statistics_bytes(reader)
        parts = min(parts, int(most))
    return parts


def _statistics_bytes(reader: VisibilityReader) -> int:
    """Size of baseline statistics by spectral window, bytes."""
    baselines = len(reader.ms.antennas) * (len(reader.ms.antennas) - 1) // 2
    return 4 * len(reader.selection.spw_ids) * reader.times.size * baselines * BYTES_PER_STATISTIC


def require_available_memory(
    reader: VisibilityReader,
    pixels: int,
    sub_bands: int = 0,
    averaging: Averaging | None = None,
    *,
    split_windows: int = 0,
) -> None:
    """Raise ResourceError if a run needs more memory than there is.

    Parameters
    ----------
    reader : VisibilityReader
        The data.
    pixels : int
        Pixels of an image.
    sub_bands : int
        Parts of each spectral window whose statistics are kept apart.
    averaging : Averaging, optional
        How far channels are averaged; not at all by default.
    split_windows : int
        Windows whose statistics of the halves of the sky model are kept apart: one if all share gains,
        none without a catalogue.
    """
    # Sub-bands are looked at before the halves.
    split = SPLIT_SUMS * split_windows / len(reader.selection.spw_ids)
    sums = max(SUB_BAND_COPIES * sub_bands, split)
    if averaging is not None and averaging.worthwhile(reader):
        samples = averaged_samples(reader, averaging)
        kept = min(samples * (BYTES_PER_BIN + 2 * 4), int(averaging.memory_bytes))
        _require(reader, pixels, sums, kept, samples * BYTES_PER_SCATTERED)
        return
    # The blocks, and the visibilities of the sky model and of one that is tried; or one block at a time.
    kept = reader.samples * (BYTES_PER_SAMPLE + 2 * 4) if reader.cached else 0
    _require(reader, pixels, sums, kept, reader.samples * BYTES_PER_VISIBILITY // 2)


def _require(reader: VisibilityReader, pixels: int, sums: float, kept: int, imaged: int) -> None:
    """Raise ResourceError if what is kept and imaged, bytes, statistics and images do not fit."""
    statistics = int((1 + sums) * _statistics_bytes(reader))
    imaging = imaged + 4 * IMAGES_ALIVE * pixels
    needed, available = kept + statistics + imaging, available_bytes()
    if needed > available:
        keep_less = f" --memory-gb below {kept / 1e9:.2g} (blocks are read again then)," if kept else ""
        raise ResourceError(
            f"out of memory: at least {needed / 1e9:.3g} GB needed, {available / 1e9:.3g} GB available",
            reader.ms.path,
            f"free some,{keep_less} lower --size or select spectral windows with --spw",
        )
