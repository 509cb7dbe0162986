"""Exact, off-grid prediction of visibilities from sky components.

One compiled, threaded kernel sums points and Gaussians; a float64 sum of
the same formula stands beside it as its judge.
"""

from dsa110_contimg.predict.averaged import predict_averaged, predict_averaged_reference, predict_samples
from dsa110_contimg.predict.direct import predict_components, predict_reference

__all__ = [
    "predict_averaged",
    "predict_averaged_reference",
    "predict_components",
    "predict_reference",
    "predict_samples",
]
