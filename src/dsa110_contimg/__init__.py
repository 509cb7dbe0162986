"""Catalogue-seeded self-calibration of radio-interferometric continuum observations."""

__version__ = "0.2.0"
