"""All arms imaged from DATA alike and measured alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.array_types import Bool, Float
from dsa110_contimg.calibration.apply import chain
from dsa110_contimg.calibration.caltables import read_gain_table
from dsa110_contimg.calibration.gains import SELFCAL_MAX_GAP, Gains, GainTable
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import EngineError
from dsa110_contimg.imaging import (
    ImageGrid,
    compare_sources,
    mad_rms,
    measure_image,
    off_source_or_sources_alone,
    read_image,
)
from dsa110_contimg.imaging.backend import Embedded
from dsa110_contimg.imaging.products import write_products
from dsa110_contimg.progress import Progress
from dsa110_contimg.selfcal.calibration_data import CalibrationData
from dsa110_contimg.selfcal.imaging import CalibratedImage, make_image, measure, metrics_dict
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.params import SelfCalParams, check_params
from dsa110_contimg.selfcal.stage_log import StageLog
from dsa110_contimg.sky import ApparentSky
from dsa110_contimg.sky.components import ARCSEC
from dsa110_contimg.visibilities import NoiseScale

__all__ = ["CommonImages", "Judge", "arm_tables", "unit_table"]


@dataclass(frozen=True)
class CommonImages:
    """What the arms look like under equal conditions.

    Attributes
    ----------
    before : dict
        Figures of the data as found.
    arms : dict of str to dict
        By arm: ``shallow``, ``deep``, ``subtracted`` and ``delivered`` figures.
    depth_jy : float
        Common CLEAN depth of ``before`` and ``shallow``, in the units of the data as found.
    region_fraction : float
        Off-source part of the image, over which every rms is measured.
    region_beams : float
        The same in beam areas: independent samples.
    beam_arcsec : float
        Major axis of the beam of the image before.
    flagged_fraction : float
        Antenna gains that some arm has no solution for, and whose data no image has.
    failed : dict of str to str
        Arms whose data could not be imaged, and why.
    references : dict of str to dict
        ``shallow`` and ``deep`` figures with gains that were given, not solved.
    images : dict of str to CalibratedImage
        For pictures; ``before`` among them.
    sources : list of dict
        Unresolved isolated catalogue sources above 10 sigma in some image, the brightest first: ``name``,
        ``ra_deg``, ``dec_deg``, ``apparent_jy``, and ``measured``: by image (``before`` and arms) the flux
        over the catalogue's and the offset to east and north in arcsec.
    """

    before: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    depth_jy: float
    region_fraction: float
    region_beams: float
    beam_arcsec: float
    flagged_fraction: float
    failed: dict[str, str]
    references: dict[str, dict[str, Any]]
    images: dict[str, CalibratedImage]
    sources: list[dict[str, Any]]


def arm_tables(folder: Path, summary: Mapping[str, Any]) -> list[GainTable]:
    """Read the gain tables that an arm kept; none if it kept the input."""
    how = {r["gaintable"]: r["interpolation"] for r in summary["iterations"] if r["gaintable"]}
    return [
        # As far as the run itself carried them, which no table on disk can say.
        replace(read_gain_table(folder / n), interpolation=how[n], max_gap=SELFCAL_MAX_GAP)
        for n in summary["gaintables"]
    ]


def unit_table(times_s: Float, spw_freq_hz: Mapping[int, float], flag: Mapping[int, Bool]) -> GainTable:
    """Make gains of one that carry flags alone.

    Parameters
    ----------
    times_s : ndarray, shape (ntime,)
        Times, seconds (MJD UTC).
    spw_freq_hz : mapping of int to float
        Frequency of each spectral window in hertz.
    flag : mapping of int to ndarray of bool, shape (ntime, nant, 2)
        Flags of each spectral window.
    """
    gains = {}
    none = np.full(times_s.size, -1, dtype=np.int64)
    width = np.full(times_s.size, float(np.diff(times_s).min()) if times_s.size > 1 else 1.0)
    for spw, freq in spw_freq_hz.items():
        flags = flag[spw][:, :, None, :]
        one = np.ones(flags.shape, dtype=np.complex128)
        zero, sure = np.zeros(flags.shape), np.full(flags.shape, 1e6)
        gains[spw] = Gains(
            time_s=times_s,
            interval_s=width,
            freq_hz=np.array([freq]),
            gain=one,
            flag=flags,
            error=zero,
            snr=sure,
            reference_antenna=none,
            field_id=none,
            scan=none,
        )
    return GainTable(kind="G Jones", gains=gains, label="common flags", interpolation="nearest")


class Judge:
    """Images the data as every arm leaves them: same data, weights, mask rule and depth.

    Parameters
    ----------
    ms : Path
        Measurement Set; only read.
    outdir : Path
        Folder of the comparison.
    config : SelfCalConfig
        Options common to all arms.
    caltables : sequence of Path
        Initial tables.
    progress : Progress
        Where progress is reported.

    Raises
    ------
    InputError
        If something handed in cannot be used.
    """

    def __init__(
        self, ms: Path, outdir: Path, config: SelfCalConfig, caltables: Sequence[Path], progress: Progress
    ) -> None:
        self.config = config.with_options(catalog_mask=False, mask_radius_arcsec=None).unseeded()
        self.params: SelfCalParams = check_params(ms, outdir, self.config, caltables)
        self.data = CalibrationData(
            self.params.reader,
            self.params.initial,
            StageLog(progress),
            grid=self.params.grid,
            averaging=self.params.averaging,
        )
        self.weights = self.data.nominal_weights()
        self.grid: ImageGrid = self.params.grid
        #: What every arm, seeded or not, is measured against.
        self.reference = self.catalog_model(0.0)
        self.model = SkyVisibilities(self.reference)
        #: Faintest source that the catalogue lists in the field, jansky, seen or not.
        self.faintest_jy = float(self.catalog_model(0.0, 0.0).sky.flux_jy.min())

    def catalog_model(
        self, limit_mjy: float, apparent_mjy: float | None = None, catalog: str | None = None
    ) -> ApparentSky:
        """Catalogue model of an arm: sources above a catalogue flux and a flux through the beam, in mJy."""
        return self.params.context.catalog_model(
            catalog=catalog, min_mjy=limit_mjy, min_apparent_mjy=apparent_mjy
        )

    def compare(
        self,
        folders: Mapping[str, Path],
        summaries: Mapping[str, dict[str, Any]],
        references: Mapping[str, list[GainTable]],
    ) -> CommonImages:
        """Image and measure the data as found and as every arm calibrates them.

        Weights are those of the data, whatever the gains; an antenna that some arm
        has no solution for is left out of all images. The depth is the one to which
        the image before can be CLEANed; every arm is also CLEANed to its own, once
        with the catalogue's sources subtracted first, the unseeded arms too.

        Parameters
        ----------
        folders : mapping of str to Path
            Folder of each completed arm.
        summaries : mapping of str to dict
            Its summary.
        references : mapping of str to list of GainTable
            Gains to image with besides, the true ones of a simulation for example.
        """
        tables = {name: arm_tables(folder, summaries[name]) for name, folder in folders.items()}
        tables |= references
        common, units = self._common_flags(tables)
        noise = self._noise(tables)
        images = {"before": self._image([], "image before", common, noise)}
        depth = images["before"].cleaned.threshold_jy
        failed: dict[str, str] = {}
        for name, arm in tables.items():
            if not arm:
                # An arm that kept the input has the image before, at its own depth too.
                images[name] = images["before"]
                continue
            try:
                images[name] = self._image(arm, f"image of {name}", common, noise, depth / units[name])
            except EngineError as error:
                failed[name] = str(error)
        folders = {name: folder for name, folder in folders.items() if name in images}
        region = self._region(images, noise)
        figures = {
            name: self._depths(images[name], region, noise)
            | {"subtracted": self._subtracted(arm, name, region, common, noise)}
            for name, arm in tables.items()
            if name in images
        }
        arms = {
            name: {
                "amplitude": units[name],
                **figures[name],
                "delivered": self._delivered(images[name], region, folder, summaries[name]),
            }
            for name, folder in folders.items()
        }
        for name, folder in folders.items():
            restored = {"image": (images[name].restored, "JY/BEAM")}
            write_products(folder / "common", restored, images[name].cleaned, self.grid, self.params.reader)
        beam = images["before"].cleaned.beam
        beam_pixels = beam.solid_angle_sr / self.grid.cell_rad**2
        flags = np.stack([g.flag for g in common.gains.values()])
        return CommonImages(
            before=metrics_dict(measure(images["before"], self.grid, region, self.reference, noise)),
            arms=arms,
            depth_jy=depth,
            region_fraction=float(region.mean()),
            region_beams=float(region.sum() / beam_pixels),
            beam_arcsec=beam.major_rad / ARCSEC,
            flagged_fraction=float(flags.mean()),
            failed=failed,
            references={name: figures[name] for name in references if name in figures},
            images=images,
            sources=self._sources({name: images[name] for name in ("before", *folders)}, region),
        )

    def _sources(self, images: Mapping[str, CalibratedImage], region: Bool) -> list[dict[str, Any]]:
        """Measure catalogue sources in each image, one by one."""
        model = self.reference
        sky = model.sky
        measured: dict[int, dict[str, list[float]]] = {}
        for name, image in images.items():
            found = compare_sources(
                image.restored,
                self.grid,
                image.cleaned.beam,
                mad_rms(image.restored, region),
                sky.ra_rad,
                sky.dec_rad,
                model.apparent_jy,
                sky.is_point,
            )
            for k, ratio, (east, north) in zip(*found, strict=True):
                values = [round(float(ratio), 5), round(float(east), 3), round(float(north), 3)]
                measured.setdefault(int(k), {})[name] = values
        return [
            {
                "name": sky.name[k],
                "ra_deg": float(np.degrees(sky.ra_rad[k])) % 360,
                "dec_deg": float(np.degrees(sky.dec_rad[k])),
                "apparent_jy": float(model.apparent_jy[k]),
                "measured": measured[k],
            }
            for k in sorted(measured, key=lambda k: -model.apparent_jy[k])
        ]

    def _common_flags(self, tables: Mapping[str, list[GainTable]]) -> tuple[GainTable, dict[str, float]]:
        """Gains of one with the flags of all arms together; median |g_i g_j| of each arm."""
        reader = self.params.reader
        spws = {s: reader.ms.spectral_window(s).freq_hz for s in self.params.reader.selection.spw_ids}
        n_antennas = len(reader.ms.antennas)
        flags = {s: np.zeros((reader.times.size, n_antennas, 2), dtype=bool) for s in spws}
        units = dict.fromkeys(tables, 1.0)
        for name, arm in tables.items():
            sizes = []
            for spw, freq in spws.items():
                if not arm:
                    continue
                gain, flag = chain(arm, spw, reader.times, freq, n_antennas)
                flags[spw] |= np.broadcast_to(flag, gain.shape).any(axis=2)
                sizes.append(np.abs(gain[~np.broadcast_to(flag, gain.shape)]))
            if sizes:
                units[name] = float(np.median(np.concatenate(sizes))) ** 2
        centres = {s: float(f.mean()) for s, f in spws.items()}
        return unit_table(reader.times, centres, flags), units

    def _noise(self, tables: Mapping[str, list[GainTable]]) -> NoiseScale:
        """Measure the noise: the lowest that any state of the data shows."""
        measured = [self.data.gather(self.model, self.weights).noise]
        for calibrated in (t for t in tables.values() if t):
            measured.append(self.data.measure_residual(self.model, self.weights, calibrated).noise)
        return min(noise for noise in measured if noise.known)

    def _image(
        self,
        tables: Sequence[GainTable],
        label: str,
        common: GainTable,
        noise: NoiseScale,
        depth_jy: float | None = None,
        subtract: SkyVisibilities | None = None,
    ) -> CalibratedImage:
        return make_image(
            self.data,
            self.weights,
            tables,
            Embedded(self.config),
            label,
            subtract=subtract,
            depth_jy=depth_jy,
            noise=noise,
            weight_tables=[common],
        )

    def _region(self, images: Mapping[str, CalibratedImage], noise: NoiseScale) -> Bool:
        """More than three beams from any catalogue source above 5 sigma and any component of any arm."""
        calibrated = [image for name, image in images.items() if name != "before"]
        best = min(calibrated or list(images.values()), key=lambda image: image.cleaned.rms)
        limit = 5 * best.thermal_per_noise * noise.rms
        bright = self.reference.apparent_jy >= limit
        sky = self.reference.sky
        l, m = self.grid.sky_to_lm(sky.ra_rad[bright], sky.dec_rad[bright])  # noqa: E741
        found = np.sum([np.abs(i.shallow.model) for i in calibrated], axis=0) if calibrated else None
        return off_source_or_sources_alone(self.grid, l, m, found, best.cleaned.beam)

    def _depths(self, image: CalibratedImage, region: Bool, noise: NoiseScale) -> dict[str, dict[str, Any]]:
        return {
            name: metrics_dict(measure(image, self.grid, region, self.reference, noise, shallow=shallow))
            for name, shallow in (("shallow", True), ("deep", False))
        }

    def _subtracted(
        self,
        tables: Sequence[GainTable],
        name: str,
        region: Bool,
        common: GainTable,
        noise: NoiseScale,
    ) -> dict[str, Any]:
        """Figures with the catalogue's sources subtracted before CLEAN and restored after it.

        What gains lack in phase, amplitude and position stays, whatever they were solved against.
        """
        image = self._image(tables, f"{name}, catalogue subtracted", common, noise, subtract=self.model)
        return metrics_dict(measure(image, self.grid, region, self.reference, noise))

    def _delivered(
        self, image: CalibratedImage, region: Bool, folder: Path, summary: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Figures of the image that the run left: weights of its own gains, its own sky model subtracted."""
        left = read_image(folder / "final-image.fits")
        return metrics_dict(
            measure_image(
                left.image,
                self.grid,
                left.beam or image.cleaned.beam,
                region,
                thermal_rms_jy=summary["final"]["thermal_rms_jy"],
                ra_rad=self.reference.sky.ra_rad,
                dec_rad=self.reference.sky.dec_rad,
                flux_jy=self.reference.apparent_jy,
                is_point=self.reference.sky.is_point,
            )
        )
