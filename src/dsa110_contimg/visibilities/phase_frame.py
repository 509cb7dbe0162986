"""Which frame of the sky the directions of a Measurement Set are in."""

from __future__ import annotations

from dsa110_contimg.visibilities.frames import frames_of_rows
from dsa110_contimg.visibilities.measurement_set import MeasurementSet
from dsa110_contimg.visibilities.tables import reading

__all__ = ["phase_frame"]


def phase_frame(ms: MeasurementSet) -> str:
    """Name the frame of the phase centres as they are used: J2000, or ICRS, which others are converted to.

    They are told apart by 20 milliarcseconds, which matters where model visibilities of two programs are
    compared and nowhere else.
    """
    with reading(ms.subtable("FIELD")) as sub:
        frames = set(frames_of_rows(sub))
    return "J2000" if frames == {"J2000"} else "ICRS"
