"""Gains: statistics of the data, solutions, delays and bandpass, CASA tables; no loop and no images.

Everything a solution needs is gathered in one pass over the data
(:mod:`~dsa110_contimg.calibration.statistics`); solving, choosing intervals and
cross-validation then cost milliseconds.
"""
