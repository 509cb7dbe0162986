"""What following the beam is worth: drift-aware, frozen at mid-observation, and no beam at all.

    python benchmarks/beam_models.py OBS.ms CATALOG_DIR OBS.truth.npz

Solves the same simulated drift scan (``contimg simulate``) against the seed seen in three ways and compares
the gains with the truth. No image is made.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from dsa110_contimg.calibration.cross_validation import GainSolver
from dsa110_contimg.calibration.reference_antenna import rank_reference_antennas
from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.calibration_data import Observation, SeedModel
from dsa110_contimg.simulate import Truth
from dsa110_contimg.sky import AiryBeam, beam_for_antenna, build_seed
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set

#: A dish so small that its beam is flat over the sky.
NO_BEAM = AiryBeam(1e-3)


def main() -> None:
    ms = open_measurement_set(sys.argv[1])
    truth = Truth.read(Path(sys.argv[3]))
    beam = beam_for_antenna(ms.telescope, float(np.median(ms.antennas.dish_diameter_m)))
    reader = VisibilityReader(ms, ms.select(), cache_bytes=4 << 30)
    followed = reader.pointing.copy()
    seed = build_seed(followed, reader.freq_hz, beam, catalog_dir=Path(sys.argv[2]))
    frozen = np.repeat(followed[len(followed) // 2][None], len(followed), axis=0)
    # Without a beam only the main lobe makes any sense: further out wait Cas A and Cyg A.
    inner = np.flatnonzero(seed.apparent_jy > 0.01 * seed.sky.flux_jy)
    sky = seed.sky.select(inner)
    unattenuated = replace(seed, sky=sky, beam=NO_BEAM, apparent_jy=sky.flux_jy)
    print(
        f"{'seed seen through':<28}{'chi2':>8}{'phase deg':>11}{'amplitude scatter':>19}{'|g|^2 / true':>14}"
    )
    for name, pointing, model in (
        ("the beam, followed in time", followed, seed),
        ("the beam of mid-observation", frozen, seed),
        ("no beam", followed, unattenuated),
    ):
        reader.pointing = pointing
        observation = Observation(reader, [], LogProgress())
        observation.set_model(SeedModel(model))
        statistics, noise = observation.gather()
        solver = GainSolver(
            statistics,
            times_s=reader.times,
            dump_s=reader.interval_s,
            scan=reader.scan,
            field_id=reader.field_id,
            freq_hz=np.array([w.freq_hz.mean() for w in ms.spectral_windows]),
            reference_antennas=rank_reference_antennas(statistics, ms.antennas.position_m),
            noise_scale2=noise.scale2,
            common=False,
            combine_spw=True,
            combine_scans=True,
            min_snr=3.0,
            min_baselines=4,
        )
        phase = solver.best("p", "auto")
        amplitude = solver.after(phase.table).best("ap", "inf")
        gain = np.ones(truth.gain.shape, dtype=np.complex128)
        for table in (phase.table, amplitude.table):
            gains, _ = table.for_window(ms.spectral_windows[0].id).at_times(
                truth.times_s, table.interpolation
            )
            gain = gain * gains[:, :, 0]
        error = gain / truth.gain
        unit = error / np.abs(error)
        angle = np.angle(unit * np.conj(unit.mean(axis=1, keepdims=True)))
        size = np.abs(error)
        print(
            f"{name:<28}{amplitude.score.chi2_heldout:>8.3f}{np.degrees(np.sqrt(np.mean(angle**2))):>11.2f}"
            f"{np.std(size / np.median(size)):>19.4f}{np.median(size) ** 2:>14.3f}"
        )


if __name__ == "__main__":
    main()
