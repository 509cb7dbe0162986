"""What the tests of the stages share: simulated data opened in memory, gain tables, notes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.calibration.gains import Gains, GainTable
from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.config import SelfCalConfig, SimulationConfig
from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.params import check_params
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.simulate import simulate
from dsa110_contimg.sky import SkyModel
from tests.arrays import COMPACT


class Notes(LogProgress):
    """Keeps the lines that are noted."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)

    def about(self, text: str) -> list[str]:
        """Lines that hold a text."""
        return [line for line in self.lines if text in line]


#: A small observation, in which gains follow what they are given far: the hardest one to tell skies by.
SMALLEST: dict[str, Any] = {"array": COMPACT, "channels": 4, "dumps": 4, "drift": False, "seed": 2}
SMALLEST |= {"sefd_jy": 2000.0, "min_mjy": 20.0}


def observe(folder: Path, sky: SkyModel | None = None, **options: Any) -> tuple[Path, SelfCalConfig]:
    """Simulate such an observation and build its catalogue; return it, and options with small images."""
    simulate(folder / "t.ms", SimulationConfig(**(SMALLEST | options)), sky=sky)
    build_strips("nvss", folder / "t.catalog.ecsv", folder / "c")
    return folder / "t.ms", SelfCalConfig(catalog_dir=folder / "c", size=192, cell_arcsec=24.0)


def open_data(ms_path: Path, config: SelfCalConfig, initial: tuple[GainTable, ...] = ()) -> CalibrationData:
    """Open an observation as a run does, with blocks of its own in memory and initial tables from memory."""
    params = check_params(ms_path, ms_path.parent / "out", config, ())
    assert params.reader.cached
    return CalibrationData(
        params.reader,
        initial,
        StageLog(LogProgress()),
        grid=params.grid,
        catalog_model=params.catalog_model,
        mask_sources=params.mask_sources,
    )


def gain_table(data: CalibrationData, gain: np.ndarray, kind: str = "G Jones") -> GainTable:
    """Table of gains that hold through all dumps.

    Parameters
    ----------
    data : CalibrationData
        One spectral window.
    gain : ndarray, shape (nant, 2) or (nant, nchan, 2)
        Gains.
    kind : str
        Kind of the table.
    """
    gain = gain[:, None] if gain.ndim == 2 else gain
    shape = (1, *gain.shape)
    (spw,) = data.spw_ids
    freq = data.reader.ms.spectral_window(spw).freq_hz
    gains = Gains(
        time_s=data.reader.times[:1],
        interval_s=np.array([np.ptp(data.reader.times) + 1]),
        freq_hz=freq if gain.shape[1] > 1 else freq[:1],
        gain=gain[None].astype(complex),
        flag=np.zeros(shape, dtype=bool),
        error=np.zeros(shape),
        snr=np.full(shape, 100.0),
        reference_antenna=np.zeros(1, int),
        field_id=np.zeros(1, int),
        scan=np.zeros(1, int),
    )
    return GainTable(kind=kind, gains={spw: gains}, interpolation="nearest")


def gain_errors(data: CalibrationData, phase_rms_deg: float, amplitude_rms: float = 0.0) -> GainTable:
    """Table of random gains, that as an initial table spoils what is calibrated."""
    shape = (2, len(data.reader.ms.antennas), 2)
    phase, amplitude = np.random.default_rng(5).standard_normal(shape)
    return gain_table(data, (1 + amplitude_rms * amplitude) * np.exp(1j * np.radians(phase_rms_deg) * phase))


def add_noise(data: CalibrationData, sigma: float, antenna: int | None = None) -> None:
    """Add noise to the blocks in memory, of all baselines or of those of one antenna.

    Parameters
    ----------
    data : CalibrationData
        From :func:`open_data`: its blocks are nobody else's.
    sigma : float
        Standard deviation of the real part at unit weight.
    antenna : int, optional
        The antenna.
    """
    rng = np.random.default_rng(11)
    for block in data.reader.blocks():
        mine = np.ones(block.rows.size, bool)
        if antenna is not None:
            mine = (block.antenna1 == antenna) | (block.antenna2 == antenna)
        noise = rng.standard_normal((2, *block.data.shape))
        used = mine[:, None, None] & (block.weight > 0)
        block.data[used] += ((noise[0] + 1j * noise[1])[used] * sigma / np.sqrt(block.weight[used])).astype(
            np.complex64
        )


def hashed(data: CalibrationData) -> str:
    """SHA-256 of data, weights and flags of all blocks in memory."""
    digest = hashlib.sha256()
    for block in data.reader.blocks():
        for array in (block.data, block.weight, block.flag):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
