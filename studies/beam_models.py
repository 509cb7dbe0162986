"""What following the beam is worth: drift-aware, frozen at mid-observation, and no beam at all.

    python -m studies.beam_models OBS.ms CATALOG_DIR OBS.truth.npz

Solves the same simulated drift scan (``contimg simulate``) against the seed seen in three ways and compares
the gains with the truth. No image is made.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from dsa110_contimg.calibration.apply import gains_at_times
from dsa110_contimg.calibration.cross_validation import GainSolver
from dsa110_contimg.calibration.reference_antenna import rank_reference_antennas
from dsa110_contimg.calibration.solve_settings import Grouping, ObservationAxes, SolveSettings
from dsa110_contimg.progress import LogProgress
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.simulate import Truth
from dsa110_contimg.sky import AiryBeam, beam_for_antenna, build_catalog_model
from dsa110_contimg.visibilities import VisibilityReader, open_measurement_set

#: A dish so small that its beam is flat over the sky.
NO_BEAM = AiryBeam(1e-3)


def main() -> None:
    ms = open_measurement_set(sys.argv[1])
    truth = Truth.read(Path(sys.argv[3]))
    beam = beam_for_antenna(ms.telescope, float(np.median(ms.antennas.dish_diameter_m)))
    reader = VisibilityReader(ms, ms.select(), cache_bytes=4 << 30)
    followed = reader.pointing.copy()
    seed = build_catalog_model(followed, reader.freq_hz, beam, catalog_dir=Path(sys.argv[2]))
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
        data = CalibrationData(reader, [], StageLog(LogProgress()))
        gathered = data.gather(SkyVisibilities(model), data.nominal_weights())
        statistics = gathered.statistics
        ranked = rank_reference_antennas(statistics, ms.antennas.position_m)
        solver = GainSolver(
            statistics=statistics,
            axes=ObservationAxes.of(reader),
            settings=SolveSettings(gathered.noise, tuple(ranked)),
            groupings=(Grouping(per_polarization=True, combine_spw=True),),
        )
        phase = solver.best("p", "auto")
        amplitude = solver.after(phase.table).best("ap", "inf")
        tables, spw_id = [phase.table, amplitude.table], ms.spectral_windows[0].id
        gain, _ = gains_at_times(tables, [spw_id], truth.times_s, truth.gain.shape[1])
        error = gain[0] / truth.gain
        unit = error / np.abs(error)
        angle = np.angle(unit * np.conj(unit.mean(axis=1, keepdims=True)))
        size = np.abs(error)
        print(
            f"{name:<28}{amplitude.score.chi2_heldout:>8.3f}{np.degrees(np.sqrt(np.mean(angle**2))):>11.2f}"
            f"{np.std(size / np.median(size)):>19.4f}{np.median(size) ** 2:>14.3f}"
        )


if __name__ == "__main__":
    main()
