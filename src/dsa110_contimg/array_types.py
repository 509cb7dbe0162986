"""Array types by what they hold; shapes stand in the docstrings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bool", "Complex", "Float", "Image", "Int", "Single", "Vis", "Weight"]

Float = NDArray[np.float64]
Complex = NDArray[np.complex128]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]
Single = NDArray[np.float32]
#: Images, and what lies on their pixels, in single precision as FITS files hold them.
Image = NDArray[np.float32]
#: Visibilities and their weights (inverse variances), in single precision as Measurement Sets hold them.
Vis = NDArray[np.complex64]
Weight = NDArray[np.float32]
