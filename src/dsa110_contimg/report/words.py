"""What the report says in words: statuses, figures, products."""

from __future__ import annotations

from dsa110_contimg.selfcal.naming import ANTENNAS, MASK, MODEL, PICTURE, SOURCES, STAGES, SUMMARY, VERDICT

__all__ = [
    "ANOTHER_SKY",
    "FEWEST_COMPARED",
    "FINDING_DID",
    "HEADLINES",
    "JUDGED",
    "MEANINGS",
    "OF_GAINS",
    "PRODUCTS",
    "TO_CHECK",
    "UNDONE",
    "WHAT_TO_DO",
    "WORDS",
]

#: Headline by status, with a sign, so that colour is not all that tells them apart.
HEADLINES = {
    "improved": ("\u2713", "Improved: a better calibration was found"),
    "converged": ("\u2713", "Converged: the input is already as well calibrated; it was kept"),
    "no_improvement": ("\u25cb", "No improvement: no round was accepted; the input was kept"),
    "diverged": ("!", "Diverged: a round went wrong and was rolled back; the input was kept"),
    "refused": ("\u2715", "Refused: no gains were kept; the Measurement Set was not touched"),
    "failed": ("\u2715", "Failed: the run ended with an error"),
    "unfinished": ("\u2026", "Unfinished: the run has not come to its end"),
}
WHAT_TO_DO = {
    "improved": "The columns that were asked for hold the calibrated data and the model, and the gain tables "
    "can be applied after the initial ones. Look at the findings and at sky minus catalogue before the image "
    "is used.",
    "converged": "The Measurement Set is unchanged, and final-image.fits is the image of it.",
    "no_improvement": "The Measurement Set is unchanged. The rounds below say why each was not accepted.",
    "diverged": "The Measurement Set is unchanged. The rounds below say which went wrong; check flags and "
    "initial tables.",
    "refused": "There is too little signal for gains: give more data or "
    "longer intervals, and check flags and initial tables.",
    "failed": "The Measurement Set is usable. Remove the cause that the error names and give the same "
    "command again.",
    "unfinished": "It still runs, or was killed. The Measurement Set is usable; the same command again "
    "finishes the work.",
}
#: What follows where a run was refused for what held-out sources say.
ANOTHER_SKY = (
    "The likely cause is named above, and docs/troubleshooting/sky-is-not-the-catalogues.md says what to try."
)
#: What the pipeline says of a run, by its verdict: sign, headline, and class of the style sheet.
JUDGED = {
    "good": (
        "\u2713",
        "The pipeline judges it good: noise, fluxes and positions are within its limits",
        "good",
    ),
    "unverified": (
        "!",
        "The pipeline judges it unverified: nothing was there to hold noise, fluxes or positions against",
        "open",
    ),
    "kept": ("\u25cb", "The pipeline notes that the input was kept", "open"),
    "bad": ("\u2715", "The pipeline judges it bad", "bad"),
}
#: What the key figures mean.
MEANINGS = {
    "signal to noise": "The brightest pixel over the noise away from sources. It flatters: look "
    "at the others too.",
    "noise over thermal": "Noise of the image over what the receivers alone give: 1 is as good as it gets.",
    "flux ratio": "Median flux of isolated catalogue sources over the catalogue's: 1 is its flux scale.",
    "position offset (arcsec)": "Median shift of the same sources to the east and north: 0 is where the "
    "catalogue has them.",
    "sources that agree": "Bright sources where and as bright as the catalogue has them.",
    "solved (%)": "Gains of the kept round that were found; data without one are left out of the image.",
    "held-out chi-squared": "What the gains leave on channels that they were not solved on, in units of the "
    "thermal variance: 1 is noise.",
    "seconds": "From opening the data to the last product.",
}
#: A median of fewer sources is that of their errors.
FEWEST_COMPARED = 5
#: Words of these pages that not everybody uses so.
WORDS = {
    "apparent flux": "Flux as the telescope sees it: that of the catalogue times the response of the "
    "primary beam at the source.",
    "chi-squared": "Variance of the calibrated data minus the sky model, over that of the thermal noise: "
    "1 is noise alone.",
    "dump": "One integration of the correlator: what it writes at one time.",
    "held-out": "Kept away from the solver, so that a result is not judged on what it was fitted to. "
    "Held-out channels: every other one, on which gains from the rest are scored. Held-out sources: one "
    "half of the catalogue's flux, measured with gains from the other half.",
    "interval": "Time over which a gain is taken as constant: one solution.",
    "round": "One solution for all gains, phases alone or with amplitudes, and the decision to accept it.",
    "seed": "The sky model that a run begins with: the catalogue, or a model of your own.",
    "thermal noise": "What the receivers alone give, estimated from the data: the least rms that an image "
    "can have.",
}
#: What a finding did to the run, by its status.
FINDING_DID = {"refused": "refused the run", "no_improvement": "kept the input", "": "for information"}
#: Of one that speaks against the result, which is there all the same.
TO_CHECK = "to be checked"
#: Of what gains did to the sky, where they were not kept.
OF_GAINS, UNDONE = ("moved", "position", "scale"), "by gains that were not kept"
PRODUCTS = {
    SUMMARY: "status, figures, findings, rounds, timings, provenance",
    STAGES: "each stage as it ended",
    PICTURE: "the pictures of this page in one file",
    "initial-image.fits": "image of the data as found",
    "final-image.fits": "image of the best calibration",
    "final-difference.fits": "the same minus the catalogue",
    "final-residual.fits": "what CLEAN left",
    "final-model.fits": "what CLEAN found",
    "final-psf.fits": "point-spread function",
    SOURCES: "every source, with its measured flux, errors and position, and new ones",
    MODEL: "sky model that the gains were solved against",
    ANTENNAS: "every antenna and polarisation",
    VERDICT: "what the pipeline made of the run",
    MASK: "where CLEAN components could be",
    "selfcal-seed.txt": "catalogue model as WSClean component list",
    "selfcal-seed.reg": "catalogue model as DS9 regions",
}
