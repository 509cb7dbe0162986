"""The sky as the telescope sees it: components, primary beams, catalogue model.

A :class:`SkyModel` lists sources as a catalogue knows them, a
:class:`PrimaryBeam` says how much of each reaches the receiver, and
:func:`build_catalog_model` joins the two into the :class:`ApparentSky` that calibration starts from: the
catalogue model.
"""

from dsa110_contimg.sky.antenna_beams import AntennaBeams
from dsa110_contimg.sky.apparent_sky import ApparentSky
from dsa110_contimg.sky.beam import AiryBeam, CosineBeam, GaussianBeam, PrimaryBeam
from dsa110_contimg.sky.beam_file import FileBeam, read_beam_file
from dsa110_contimg.sky.beam_list import read_beam_list
from dsa110_contimg.sky.catalog_model import build_catalog_model, catalogued_sky, far_bright_sources
from dsa110_contimg.sky.components import SkyModel
from dsa110_contimg.sky.directions import angular_separation, lmn_from_radec, radec_from_lm
from dsa110_contimg.sky.mixed_beam import MixedBeam, mixed_beam
from dsa110_contimg.sky.own_model import add_own_model, build_own_model
from dsa110_contimg.sky.telescopes import beam_for_antenna, choose_beam

__all__ = [
    "AiryBeam",
    "AntennaBeams",
    "ApparentSky",
    "CosineBeam",
    "FileBeam",
    "GaussianBeam",
    "MixedBeam",
    "PrimaryBeam",
    "SkyModel",
    "add_own_model",
    "angular_separation",
    "beam_for_antenna",
    "build_catalog_model",
    "build_own_model",
    "catalogued_sky",
    "choose_beam",
    "far_bright_sources",
    "lmn_from_radec",
    "mixed_beam",
    "radec_from_lm",
    "read_beam_file",
    "read_beam_list",
]
