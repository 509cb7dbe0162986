"""A list of antennas whose beams are not the common one: dishes of another kind, or that were measured."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, cast

import numpy as np

from dsa110_contimg.errors import InputError
from dsa110_contimg.sky.beam import FORMS, AiryBeam, PrimaryBeam
from dsa110_contimg.sky.beam_file import read_beam_file

__all__ = ["read_beam_list"]

#: What a FITS cube may hold.
KINDS = ("power", "voltage")


def read_beam_list(
    path: Path, names: Sequence[str], kind: Literal["power", "voltage"] = "power"
) -> list[PrimaryBeam | None]:
    """Read the beams of antennas that have another one than the rest.

    Parameters
    ----------
    path : Path
        Text file. Each line has the name of an antenna, or a pattern of names with ``*`` and ``?``, and its
        beam: a FITS cube, from the folder of the list, and perhaps the word ``power`` or ``voltage``; or a
        form and an effective diameter in metres, ``airy:12``. What follows ``#`` is a comment.
    names : sequence of str, length nant
        Antennas of the observation. Lines of others are passed over.
    kind : str, optional
        What a cube holds of which the list does not say it.

    Returns
    -------
    list of PrimaryBeam or None
        The beam of each antenna, the same object where it is the same; None of those that are not listed.

    Raises
    ------
    InputError
        If the file cannot be read, a line says no beam, two lines say one of an antenna, or none is listed.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot be read as a list of beams: {reason}", path, "give a text file") from None
    known: dict[tuple[str, ...], PrimaryBeam] = {}
    of_antenna: list[PrimaryBeam | None] = [None] * len(names)
    said_by: dict[int, int] = {}
    for number, line in enumerate(lines, 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise InputError(f"line {number}: {error}", path, "mend the line") from None
        if not words:
            continue
        pattern, *rest = words
        if not (1 <= len(rest) <= 2 and (len(rest) == 1 or rest[1] in KINDS)):
            raise InputError(
                f"line {number} is not an antenna, its beam, and power or voltage of a file",
                path,
                "mend the line, as in 'm0* dish.fits voltage' or 'm0* airy:12'",
            )
        chosen = [k for k, name in enumerate(names) if fnmatchcase(name, pattern)]
        twice = [k for k in chosen if k in said_by]
        if twice:
            raise InputError(
                f"lines {said_by[twice[0]]} and {number} both give a beam of {names[twice[0]]}",
                path,
                "leave one of them out",
            )
        if chosen and tuple(rest) not in known:
            known[tuple(rest)] = _beam_of(rest, path, number, kind)
        for k in chosen:
            of_antenna[k], said_by[k] = known[tuple(rest)], number
    if not said_by:
        raise InputError("none of the antennas is in it", path, "give names as the ANTENNA table has them")
    return of_antenna


def _beam_of(words: list[str], path: Path, number: int, kind: Literal["power", "voltage"]) -> PrimaryBeam:
    """Give the beam that a line says."""
    form, colon, size = words[0].partition(":")
    if colon and form in FORMS:
        try:
            diameter = float(size)
        except ValueError:
            diameter = float("nan")
        if not (np.isfinite(diameter) and diameter > 0) or len(words) > 1:
            raise InputError(
                f"line {number}: {' '.join(words)} is not a form and a diameter in metres",
                path,
                "write it as in airy:12",
            )
        return AiryBeam(diameter) if form == AiryBeam.form else FORMS[form](diameter)
    held = cast("Literal['power', 'voltage']", words[1]) if len(words) > 1 else kind
    return read_beam_file(path.parent / words[0], held)
