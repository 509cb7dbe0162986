"""The embedded imaging engine: visibilities in plain arrays become images, clean components and figures.

`StokesI` chunks, made with `stokes_i`, go into an `Imager` on an `ImageGrid`, which grids them with imaging
weights and subtracts models; `clean` deconvolves what it gives, with Radler, and restores the result with the
`RestoringBeam` that `fit_beam` finds; `add_gaussians` restores catalogued sources at their exact positions.
`off_source_region` and `measure_image` turn an image into `ImageMetrics`; `write_image` and `read_image` keep
it in FITS. Pictures are drawn by `imaging.picture`, which is not imported here: it needs Matplotlib.
"""

from dsa110_contimg.imaging.averaging import average_channels
from dsa110_contimg.imaging.captured_stdout import captured_stdout
from dsa110_contimg.imaging.clean import CleanResult, CleanSettings, clean
from dsa110_contimg.imaging.fits import FitsImage, ImageHeader, read_image, write_image
from dsa110_contimg.imaging.grid import ImageGrid, choose_grid
from dsa110_contimg.imaging.gridder import Imager, degrid
from dsa110_contimg.imaging.measure import (
    ImageMetrics,
    SourceFit,
    compare_sources,
    fit_source,
    mad_rms,
    measure_image,
    off_source_or_sources_alone,
    off_source_region,
)
from dsa110_contimg.imaging.restoring_beam import RestoringBeam, add_gaussians, fit_beam, restore
from dsa110_contimg.imaging.stokes import StokesI, stokes_i
from dsa110_contimg.imaging.weighting import Weighting, imaging_weights

__all__ = [
    "CleanResult",
    "CleanSettings",
    "FitsImage",
    "ImageGrid",
    "ImageHeader",
    "ImageMetrics",
    "Imager",
    "RestoringBeam",
    "SourceFit",
    "StokesI",
    "Weighting",
    "add_gaussians",
    "average_channels",
    "captured_stdout",
    "choose_grid",
    "clean",
    "compare_sources",
    "degrid",
    "fit_beam",
    "fit_source",
    "imaging_weights",
    "mad_rms",
    "measure_image",
    "off_source_or_sources_alone",
    "off_source_region",
    "read_image",
    "restore",
    "stokes_i",
    "write_image",
]
