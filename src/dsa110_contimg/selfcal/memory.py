"""Memory that a run needs at the least, held against what the machine has left."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

import numpy as np

from dsa110_contimg.calibration.bandpass import SUB_BANDS
from dsa110_contimg.calibration.pointing import AXES, BASES
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import ResourceError
from dsa110_contimg.imaging.obs_context import BYTES_PER_VISIBILITY
from dsa110_contimg.selfcal.averaged_data import (
    BLOCK_BYTES,
    BYTES_PER_BIN,
    BYTES_PER_SCATTERED,
    BYTES_PREDICTED,
    Averaging,
    averaged_samples,
)
from dsa110_contimg.selfcal.split_statistics import SPLIT_SUMS
from dsa110_contimg.visibilities import VisibilityReader
from dsa110_contimg.visibilities.reader import BYTES_PER_SAMPLE

__all__ = [
    "MODELS",
    "MODELS_OF_POINTING",
    "available_bytes",
    "pointing_bytes",
    "require_available_memory",
    "return_free_memory",
    "sub_bands_of_window",
]

#: Sky models whose predictions are remembered at the same time: the newest, and one that is tried. While
#: pointing offsets are solved for there is that before them too, and each may have its squint.
MODELS, MODELS_OF_POINTING = 2, 6

#: Images of single precision that are alive at the same time while one is CLEANed and compared.
IMAGES_ALIVE = 12
#: Per baseline, dump, polarisation and half: one complex and three real numbers of double precision.
BYTES_PER_STATISTIC = 40
#: Statistics by sub-band that nobody asked for take no more than this part of `memory_gb`.
UNASKED_SHARE = 0.25
#: Sums that pointing offsets are from, with those that are made of them while they are solved for.
POINTING_COPIES = 3
#: Per visibility of one hand of a block: gradients and model, data and weights with gains from either half.
POINTING_BYTES_PER_SAMPLE = 80
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


def pointing_bytes(reader: VisibilityReader, samples: int | None = None) -> int:
    """Memory that is needed to solve for pointing offsets, beside data, predictions and statistics of gains.

    Parameters
    ----------
    reader : VisibilityReader
        The data.
    samples : int, optional
        Visibilities after averaging, parallel hands counted singly; not averaged by default.

    Returns
    -------
    int
        Bytes: sums by baseline, the normal equations of all antennas, and one block of data with what is
        predicted of it.
    """
    n = len(reader.ms.antennas)
    sums = POINTING_COPIES * np.prod([2, n * (n - 1) // 2, 2, BASES, BASES + 1]) * 8
    solved = POINTING_COPIES * ((AXES + 1) * n) ** 2 * 8
    sizes = [rows.size * w.freq_hz.size * len(w.parallel) for rows, _, w in reader.row_sets()]
    block = max(sizes, default=0)
    if samples is not None:
        block = min(BLOCK_BYTES // BYTES_PER_BIN, -(-samples // len(reader.selection.spw_ids)))
    return int(sums + solved + POINTING_BYTES_PER_SAMPLE * block)


def require_available_memory(
    reader: VisibilityReader,
    pixels: int,
    sub_bands: int = 0,
    averaging: Averaging | None = None,
    *,
    split_windows: int = 0,
    pointing: bool = False,
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
    pointing : bool
        Whether pointing offsets of the antennas are looked for.
    """
    # Sub-bands are looked at before the halves.
    split = SPLIT_SUMS * split_windows / len(reader.selection.spw_ids)
    sums = max(SUB_BAND_COPIES * sub_bands, split)
    if averaging is not None and averaging.worthwhile(reader):
        samples = averaged_samples(reader, averaging)
        kept = min(
            samples * (BYTES_PER_BIN + averaging.models * BYTES_PREDICTED), int(averaging.memory_bytes)
        )
        beside = pointing_bytes(reader, samples) if pointing else 0
        _require(reader, pixels, sums, kept, samples * BYTES_PER_SCATTERED, beside)
        return
    # The blocks, and the visibilities of the sky models that are alive; or one block at a time.
    models = MODELS_OF_POINTING if pointing else MODELS
    kept = reader.samples * (BYTES_PER_SAMPLE + models * BYTES_PREDICTED) if reader.cached else 0
    beside = pointing_bytes(reader) if pointing else 0
    _require(reader, pixels, sums, kept, reader.samples * BYTES_PER_VISIBILITY // 2, beside)


def _require(
    reader: VisibilityReader, pixels: int, sums: float, kept: int, imaged: int, pointing: int
) -> None:
    """Raise ResourceError if what is kept, statistics, and images or pointing offsets do not fit, bytes."""
    statistics = int((1 + sums) * _statistics_bytes(reader))
    # Offsets are solved for before any image is made.
    imaging = max(imaged + 4 * IMAGES_ALIVE * pixels, pointing)
    needed, available = kept + statistics + imaging, available_bytes()
    if needed > available:
        keep_less = f" --memory-gb below {kept / 1e9:.2g} (blocks are read again then)," if kept else ""
        raise ResourceError(
            f"out of memory: at least {needed / 1e9:.3g} GB needed, {available / 1e9:.3g} GB available",
            reader.ms.path,
            f"free some,{keep_less} lower --size or select spectral windows with --spw",
        )
