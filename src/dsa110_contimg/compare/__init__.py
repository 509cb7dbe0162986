"""Comparison of strategies: the same observation self-calibrated with and without the catalogue.

Each arm is a `contimg selfcal` of its own on untouched data (`arms`, `pristine`); all are then imaged and
measured alike (`common_images`) and judged by stated rules (`verdict`, `report`). A study repeats that over a
grid of simulated observations (`study`, `study_run`, `study_page`), held against their truth (`score`).
"""

from dsa110_contimg.compare.arms import Arm, parse_arms
from dsa110_contimg.compare.run import Comparison, compare_strategies

__all__ = ["Arm", "Comparison", "compare_strategies", "parse_arms"]
