"""The sky as the telescope sees it: components, primary beam, seed.

A :class:`SkyModel` lists sources as a catalogue knows them, an
:class:`AiryBeam` says how much of each reaches the receiver, and
:func:`build_seed` joins the two into the :class:`Seed` that calibration
starts from.
"""

from dsa110_contimg.sky.beam import AiryBeam, beam_for_antenna
from dsa110_contimg.sky.components import SkyModel
from dsa110_contimg.sky.directions import angular_separation, lmn_from_radec, radec_from_lm
from dsa110_contimg.sky.seed import Seed, build_seed, catalogued_sky, far_bright_sources

__all__ = [
    "AiryBeam",
    "Seed",
    "SkyModel",
    "angular_separation",
    "beam_for_antenna",
    "build_seed",
    "catalogued_sky",
    "far_bright_sources",
    "lmn_from_radec",
    "radec_from_lm",
]
