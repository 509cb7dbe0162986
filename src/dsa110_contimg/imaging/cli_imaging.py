"""Published import path: re-exports imaging a Measurement Set."""

from dsa110_contimg.imaging.image_ms import image_ms
from dsa110_contimg.imaging.products import ImageSet

__all__ = ["ImageSet", "image_ms"]
