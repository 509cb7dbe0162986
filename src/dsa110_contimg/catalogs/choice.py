"""Which of the surveys at hand an observation is seeded from.

`choose_survey` takes the one whose frequency is nearest, on a logarithmic scale, among those that cover the
field. Surveys within 5 % of the nearest are as near, and of these the one with the widest beam is taken: it
resolves out the least flux. `choose_pair` adds to it the one with the sharpest beam, for positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from dsa110_contimg.catalogs.strips import strip_paths
from dsa110_contimg.catalogs.surveys import SURVEYS, Survey
from dsa110_contimg.errors import CatalogCoverageError, CatalogMissingError

__all__ = ["choose_pair", "choose_survey", "surveys_built"]

#: Frequencies that differ by less than this factor are as near as each other.
AS_NEAR = 1.05
#: A survey is sharper than another if its beam is narrower by this factor.
SHARPER = 1.5


def surveys_built(directory: Path) -> list[Survey]:
    """List the surveys of which strips are in a directory."""
    return [survey for survey in SURVEYS.values() if strip_paths(directory, survey.name)]


def choose_survey(
    built: Sequence[Survey], freq_hz: float, lacks: Callable[[Survey], list[str]], directory: Path
) -> tuple[Survey, str]:
    """Choose the survey that fluxes are taken from.

    Parameters
    ----------
    built : sequence of Survey
        Those at hand.
    freq_hz : float
        Frequency of the observation in hertz.
    lacks : callable
        What of the field a survey does not cover, in words; nothing if it covers it.
    directory : Path
        Where the strips are, for messages.

    Returns
    -------
    survey : Survey
    reason : str
        Why this one.

    Raises
    ------
    CatalogMissingError
        None is at hand.
    CatalogCoverageError
        None covers the field.
    """
    if not built:
        raise CatalogMissingError(
            "no catalogue strips are there", directory.absolute(), "run `contimg catalog build SURVEY SOURCE`"
        )
    reasons = {survey.name: lacks(survey) for survey in built}
    usable = [survey for survey in built if not reasons[survey.name]]
    if not usable:
        told = "; ".join(f"{name}: {', '.join(missing)}" for name, missing in reasons.items())
        raise CatalogCoverageError(
            f"no catalogue covers the field ({told})", directory.absolute(), "build one that does"
        )

    def distance(survey: Survey) -> float:
        return abs(math.log(survey.freq_hz / freq_hz))

    nearest = min(distance(survey) for survey in usable)
    near = [survey for survey in usable if distance(survey) <= nearest + math.log(AS_NEAR)]
    chosen = max(near, key=lambda survey: (survey.beam_arcsec, -distance(survey)))
    return chosen, (
        f"{chosen.name} ({chosen.freq_hz / 1e6:g} MHz) is nearest to {freq_hz / 1e6:.0f} MHz of the "
        f"{len(usable)} built that cover the field ({', '.join(survey.name for survey in usable)})"
    )


def choose_pair(
    built: Sequence[Survey],
    freq_hz: float,
    lacks: Callable[[Survey], list[str]],
    overlap: Callable[[Survey], float],
    directory: Path,
) -> tuple[Survey, Survey, str]:
    """Choose the survey that fluxes are taken from, and the sharper one that positions are taken from.

    Parameters as of `choose_survey`; ``overlap`` gives the fraction of the field that a survey covers.

    Raises
    ------
    CatalogMissingError, CatalogCoverageError
        As `choose_survey`; or there is no sharper one.
    """
    base, reason = choose_survey(built, freq_hz, lacks, directory)
    sharper = [s for s in built if s.beam_arcsec * SHARPER <= base.beam_arcsec and overlap(s) > 0]
    if not sharper:
        raise CatalogMissingError(
            f"no catalogue sharper than {base.name} is there to merge it with",
            directory.absolute(),
            f"build one, or take {base.name} alone",
        )
    sharp = min(sharper, key=lambda survey: survey.beam_arcsec)
    return base, sharp, f"{reason}; positions of {sharp.name} ({sharp.beam_arcsec:g} arcsec)"
