"""Exact, off-grid prediction of visibilities from sky components.

One compiled, threaded kernel sums points and Gaussians; a float64 sum of
the same formula stands beside it as its judge.
"""

from dsa110_contimg.predict.averaged import predict_averaged, predict_averaged_reference, predict_samples
from dsa110_contimg.predict.direct import predict_components, predict_reference
from dsa110_contimg.predict.own_beams import predict_own_beams

__all__ = [
    "predict_averaged",
    "predict_averaged_reference",
    "predict_components",
    "predict_own_beams",
    "predict_reference",
    "predict_samples",
]
