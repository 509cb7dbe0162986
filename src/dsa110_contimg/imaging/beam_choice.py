"""Which beam an observation is seen through: a formula's or a file's, and how a file's lies on the sky."""

from __future__ import annotations

import numpy as np

from dsa110_contimg.array_types import Float
from dsa110_contimg.config import SeedConfig
from dsa110_contimg.errors import ConfigError
from dsa110_contimg.sky import FileBeam, PrimaryBeam, choose_beam, mixed_beam, read_beam_file, read_beam_list
from dsa110_contimg.visibilities import VisibilityReader
from dsa110_contimg.visibilities.pointing import TRANSIT_TELESCOPES, celestial_to_terrestrial
from dsa110_contimg.visibilities.tables import open_table

__all__ = ["beam_of_observation", "parallactic_angles"]

#: Dishes whose parallactic angle is this near to upright in every dump stand on the meridian.
UPRIGHT = np.radians(2.0)
#: A beam that turns by more than this on the sky is taken round.
MOST_TURNED = np.radians(5.0)
#: Mounts that carry a beam along without turning it on the sky.
FIXED_MOUNTS = ("EQUATORIAL", "ORBITING", "BIZARRE")
POWER_HAS_NO_SIGN = (
    "beams of antennas are given as power: the voltage is its square root, without the sign that it has in "
    "every other sidelobe"
)


def beam_of_observation(reader: VisibilityReader, config: SeedConfig) -> tuple[PrimaryBeam, tuple[str, ...]]:
    """Choose the primary beam.

    Parameters
    ----------
    reader : VisibilityReader
        The selected data.
    config : SeedConfig
        Form, diameter, or file; and a list of antennas whose beams are others.

    Returns
    -------
    beam : PrimaryBeam
    notes : tuple of str
        What is to be known of the choice, a sentence each.

    Raises
    ------
    InputError
        If options contradict each other, or the file is no beam or does not cover the band.
    MeasurementSetError
        If the telescope is unknown and its ANTENNA table tells no dish.
    """
    if config.antenna_beams is None:
        return _common_beam(reader, config)
    others = read_beam_list(config.antenna_beams, reader.ms.antennas.name, config.beam_file_kind)
    if all(other is not None for other in others):
        # Of no antenna is anything else asked.
        common, notes = others[0], list[str]()
        assert common is not None
    else:
        common, of_common = _common_beam(reader, config)
        notes = list(of_common)
    placed = dict[int, PrimaryBeam]()
    for other in others:
        if isinstance(other, FileBeam) and id(other) not in placed:
            other.require(reader.freq_hz)
            placed[id(other)], said = _on_the_sky(other, reader)
            notes += [text for text in said if text not in notes]
    of_antennas = [placed.get(id(other), other) for other in others]
    if any(isinstance(beam, FileBeam) and beam.kind == "power" for beam in placed.values()):
        notes.append(POWER_HAS_NO_SIGN)
    return mixed_beam(placed.get(id(common), common), of_antennas), tuple(notes)


def _common_beam(reader: VisibilityReader, config: SeedConfig) -> tuple[PrimaryBeam, tuple[str, ...]]:
    """Choose the beam of all antennas for which no other is given."""
    if config.beam_file is None:
        antennas = reader.ms.antennas
        return (
            choose_beam(reader.ms.telescope, antennas.dish_diameter_m, config.dish_diameter_m, config.beam),
            (),
        )
    for name in ("beam", "dish_diameter_m"):
        if getattr(config, name) != type(config).model_fields[name].default:
            raise ConfigError("is given beside a beam file", name, "give one of them")
    beam = read_beam_file(config.beam_file, config.beam_file_kind)
    beam.require(reader.freq_hz)
    return _on_the_sky(beam, reader)


def _on_the_sky(beam: FileBeam, reader: VisibilityReader) -> tuple[FileBeam, tuple[str, ...]]:
    """Turn a beam to where its dishes had it."""
    with open_table(reader.ms.subtable("ANTENNA")) as table:
        mounts = {str(m).strip().upper() for m in table.getcol("MOUNT")} if table.nrows() else set()
    if mounts and all(m.startswith(FIXED_MOUNTS) for m in mounts):
        return beam, ()
    angle = parallactic_angles(
        reader.ms.antennas.position_m, reader.times / 86400.0, np.asarray(reader.pointing)
    )
    # A dish that only goes up and down the meridian looks past the zenith the other way round, and its beam
    # is given as it lies on the sky; others turn round to look there.
    on_meridian = reader.ms.telescope.strip().upper() in TRANSIT_TELESCOPES
    if (np.abs(np.sin(angle) if on_meridian else angle) < UPRIGHT).all():
        return beam, ()
    middle = float(np.angle(np.exp(1j * angle).mean()))
    span = float(np.ptp(np.angle(np.exp(1j * (angle - middle)))))
    if span <= MOST_TURNED:
        said = f"the beam of the file is turned by the parallactic angle, {np.degrees(middle):.1f} deg"
        return beam.turned(middle), (said,)
    said = (
        f"the dishes turn by {np.degrees(span):.0f} deg against the sky, which is not followed: the beam of "
        "the file is taken as its mean over all directions"
    )
    return beam.rounded(), (said,)


def parallactic_angles(position_m: Float, mjd_utc: Float, pointing: Float) -> Float:
    """Angle from the north to the zenith, through the east, at each dump.

    Parameters
    ----------
    position_m : ndarray, shape (nant, 3)
        Antennas, ITRF; their mean is the place.
    mjd_utc : ndarray, shape (ntime,)
        Dumps.
    pointing : ndarray, shape (ntime, 2)
        Directions, ICRS radians.

    Returns
    -------
    ndarray, shape (ntime,)
        Radians.
    """
    up = position_m.mean(axis=0) / np.linalg.norm(position_m.mean(axis=0))
    # From the centre of the Earth: off from the geodetic zenith by a fifth of a degree at most.
    zenith = np.array([celestial_to_terrestrial(float(t)).T @ up for t in mjd_utc])
    ra, dec = pointing.T
    east = np.stack([-np.sin(ra), np.cos(ra), np.zeros(ra.size)], axis=1)
    north = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)], axis=1)
    return np.asarray(np.arctan2((zenith * east).sum(axis=1), (zenith * north).sum(axis=1)))
