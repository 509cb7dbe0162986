"""Self-calibration: the job from a Measurement Set to gains, images, a verdict and a summary.

:func:`selfcal_ms` opens and checks everything once, makes a list of stages out of the settings, and passes a
frozen :class:`~dsa110_contimg.selfcal.state.CalState` through them.
"""

from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.selfcal.run import SelfCalResult, selfcal_ms

__all__ = ["SelfCalConfig", "SelfCalResult", "selfcal_ms"]
