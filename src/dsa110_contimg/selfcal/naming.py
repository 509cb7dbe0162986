"""Names of the products of self-calibration that more than one module has to know."""

from __future__ import annotations

__all__ = [
    "ANTENNAS",
    "COLUMNS",
    "IMAGES",
    "MASK",
    "MODEL",
    "PICTURE",
    "POINTING",
    "REPORT",
    "SOURCES",
    "STAGES",
    "SUMMARY",
    "VERDICT",
]

#: Written last: it marks a finished run.
SUMMARY = "selfcal_summary.json"
#: Each stage as it ends.
STAGES = "selfcal_stages.jsonl"
PICTURE = "selfcal.png"
#: One page that shows the whole run; made from the other products, after them.
REPORT = "report.html"
#: What the pipeline made of a run that is its own.
VERDICT = "verdict.json"
#: Every catalogue source that is bright enough, and every new one, as it was measured.
SOURCES = "sources.ecsv"
#: Components that the gains were solved against.
MODEL = "sky_model.ecsv"
#: Every antenna and polarisation.
ANTENNAS = "antennas.ecsv"
#: Where each antenna points, if that is not where it should.
POINTING = "pointing.ecsv"
#: Where CLEAN components could be; a FITS file.
MASK = "selfcal-mask.fits"
#: Columns of the Measurement Set that are written, by the option `columns`.
COLUMNS: dict[str, tuple[str, ...]] = {
    "both": ("MODEL_DATA", "CORRECTED_DATA"),
    "corrected": ("CORRECTED_DATA",),
    "model": ("MODEL_DATA",),
    "none": (),
}
#: FITS images that a run can write, without their ending.
IMAGES = (
    "initial-image",
    "final-image",
    "final-difference",
    "final-residual",
    "final-model",
    "final-psf",
)
