"""The truth of a simulated observation, and the file it is kept in."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.array_types import Complex, Float
from dsa110_contimg.errors import InputError
from dsa110_contimg.files import replacing
from dsa110_contimg.simulate.elliptical_beam import EllipticalBeam
from dsa110_contimg.simulate.instrument import Instrument
from dsa110_contimg.simulate.scene import Scene
from dsa110_contimg.sky import PrimaryBeam, SkyModel, radec_from_lm
from dsa110_contimg.sky.beam import FORMS, AiryBeam, RoundBeam

__all__ = ["Truth"]


SKY_COLUMNS = ("ra_rad", "dec_rad", "flux_jy", "spectral_index", "major_rad", "minor_rad", "pa_rad")
INSTRUMENT = tuple(field.name for field in fields(Instrument))


@dataclass(frozen=True)
class Truth:
    """What a simulated observation was made of.

    Attributes
    ----------
    times_s : ndarray, shape (ntime,)
        Dump centres, seconds (MJD UTC).
    freq_hz : ndarray, shape (nspw, nchan)
        Channels.
    pointing : ndarray, shape (ntime, 2)
        Where the dishes point, ICRS right ascension and declination in radians.
    phase_centre : ndarray, shape (ntime, 2)
        Phase centres of the dumps, alike.
    middle : ndarray, shape (2,)
        Pointing in the middle of the observation.
    beam : PrimaryBeam
        Common beam of the dishes, of their true width.
    instrument : Instrument
        The receivers.
    scene : Scene
        True sky and catalogue.
    """

    times_s: Float
    freq_hz: Float
    pointing: Float
    phase_centre: Float
    middle: Float
    beam: PrimaryBeam
    instrument: Instrument
    scene: Scene

    @property
    def sky(self) -> SkyModel:
        """True sky."""
        return self.scene.sky

    @property
    def gain(self) -> Complex:
        """True gains, shape (ntime, nant, 2)."""
        return self.instrument.gain

    def seen_sky(self, dump: int) -> SkyModel:
        """Give the true sky where refraction shows it in a dump; what lies far off stays."""
        sky, (east, north) = self.sky, self.instrument.stretches(dump)
        if east == 0 and north == 0:
            return sky
        middle = (float(self.middle[0]), float(self.middle[1]))
        l, m, _ = sky.lmn(*middle).T  # noqa: E741
        ra, dec = radec_from_lm((1 + east) * l, (1 + north) * m, *middle)
        near = np.array([kind != "far" for kind in self.scene.sky_kind])
        return replace(sky, ra_rad=np.where(near, ra, sky.ra_rad), dec_rad=np.where(near, dec, sky.dec_rad))

    def apparent_flux(self, freq_hz: Float, dump: int | None = None) -> Float:
        """Flux of the true sky through the common beam.

        Parameters
        ----------
        freq_hz : ndarray, shape (nchan,)
            Frequencies in hertz.
        dump : int, optional
            Number of the dump; the middle of the observation if not given.

        Returns
        -------
        ndarray, shape (n, nchan)
            Jansky.
        """
        ra, dec = self.middle if dump is None else self.pointing[dump]
        response = self.beam.power_towards(self.sky.lmn(float(ra), float(dec)), freq_hz)
        return np.asarray(self.sky.flux_at(freq_hz) * response)

    def write(self, path: Path) -> None:
        """Write ``OUT.truth.npz``, beside and renamed; :meth:`read` brings it back."""
        values: dict[str, Any] = {
            "times_s": self.times_s,
            "freq_hz": self.freq_hz,
            "pointing": self.pointing,
            "phase_centre": self.phase_centre,
            "middle": self.middle,
            **_beam_values(self.beam),
            "sky_entry": self.scene.sky_entry,
            "sky_kind": np.array(self.scene.sky_kind, dtype=str),
            "catalog_kind": np.array(self.scene.catalog_kind, dtype=str),
        }
        values |= {name: getattr(self.instrument, name) for name in INSTRUMENT}
        for prefix, model in (("", self.scene.sky), ("catalog_", self.scene.catalog)):
            values |= {prefix + name: getattr(model, name) for name in SKY_COLUMNS}
            values[prefix + "name"] = np.array(model.name, dtype=str)
            values[prefix + "reference_freq_hz"] = model.reference_freq_hz
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **values)

    @classmethod
    def read(cls, path: Path | str) -> Truth:
        """Read ``OUT.truth.npz``.

        Raises
        ------
        InputError
            If the file is missing or not of this kind.
        """
        try:
            with np.load(path, allow_pickle=False) as saved:
                v = dict(saved)
            v = _of_older(v) | v
            skies = [
                SkyModel(
                    tuple(str(name) for name in v[prefix + "name"]),
                    **{name: v[prefix + name] for name in SKY_COLUMNS},
                    reference_freq_hz=float(v[prefix + "reference_freq_hz"]),
                )
                for prefix in ("", "catalog_")
            ]
            scene = Scene(
                skies[0],
                tuple(str(kind) for kind in v["sky_kind"]),
                v["sky_entry"],
                skies[1],
                tuple(str(kind) for kind in v["catalog_kind"]),
            )
            return cls(
                v["times_s"],
                v["freq_hz"],
                v["pointing"],
                v["phase_centre"],
                v["middle"],
                _beam_from(v),
                Instrument(*(v[name] for name in INSTRUMENT)),
                scene,
            )
        except (OSError, ValueError, KeyError, EOFError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"cannot be read as the truth of a simulation ({text})", path, "give OUT.truth.npz"
            ) from None


def _beam_values(beam: PrimaryBeam) -> dict[str, Any]:
    """Say what a beam is made of."""
    ratio = beam.ratio if isinstance(beam, EllipticalBeam) else 1.0
    base = beam.round_beam if isinstance(beam, EllipticalBeam) else beam
    if not isinstance(base, RoundBeam):
        raise TypeError(f"a truth of a beam of form {base.form} cannot be written")
    blockage = base.blockage_m if isinstance(base, AiryBeam) else 0.0
    return {
        "beam_m": np.array([base.diameter_m, blockage]),
        "beam_form": np.array(base.form),
        "beam_ratio": np.array(ratio),
    }


def _beam_from(values: dict[str, Any]) -> PrimaryBeam:
    diameter, blockage = (float(x) for x in values["beam_m"])
    form = str(values.get("beam_form", AiryBeam.form))
    base = AiryBeam(diameter, blockage) if form == AiryBeam.form else FORMS[form](diameter)
    ratio = float(values.get("beam_ratio", 1.0))
    return base if ratio == 1 else EllipticalBeam(base, ratio)


def _of_older(values: dict[str, Any]) -> dict[str, Any]:
    """Give what an older simulator, which did not know of it, left as it is in every truth."""
    return {
        "shear": np.zeros(()),
        "stretch_drift": np.zeros(()),
        "squint_rad": np.zeros(()),
        "drift_rad": np.zeros_like(values["pointing_rad"]),
    }
