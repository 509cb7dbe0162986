"""Observations with known truth: array, sky, gains, noise, and the Measurement Set that holds them."""

from dsa110_contimg.simulate.array import Array, read_array
from dsa110_contimg.simulate.observe import SimulationConfig, simulate
from dsa110_contimg.simulate.truth import Truth

__all__ = ["Array", "SimulationConfig", "Truth", "read_array", "simulate"]
