"""Values of options that are more than a number or a name: rules, ages, depths with their units."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["VERDICTS", "RetentionRule", "parse_age", "parse_retention", "parse_threshold"]

#: Verdicts on what is published, the best first, and what rules of retention may name.
VERDICTS = ("good", "unverified", "kept", "bad")
RETAINED_VERDICTS = (*VERDICTS, "failed", "any")
#: Units of ages, seconds.
AGES_S = {"h": 3600.0, "d": 86400.0}
#: Units of a CLEAN depth, and what they are of a jansky.
DEPTH_UNITS = {"Jy": 1.0, "mJy": 1e-3, "uJy": 1e-6, "sigma": 1.0}


@dataclass(frozen=True)
class RetentionRule:
    """What is removed of which products, and when.

    Attributes
    ----------
    verdict : str
        On what is published: good, unverified, kept or bad; failed where nothing is; any.
    what : str
        ``images`` of the self-calibrations, or all ``products`` but the record.
    age_s : float
        Seconds since the run ended.
    """

    verdict: str
    what: str
    age_s: float


def parse_age(text: str) -> float | None:
    """Read an age, 12h or 30d, in seconds; None if it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hd])", text)
    return float(found[1]) * AGES_S[found[2]] if found else None


def parse_retention(text: str) -> tuple[RetentionRule, ...]:
    """Read rules of retention: "any:images:30d,failed:products:12h".

    Raises
    ------
    ValueError
        If one of them is none.
    """
    rules = []
    for word in filter(None, (w.strip() for w in text.split(","))):
        parts = word.split(":")
        age = parse_age(parts[-1])
        known = len(parts) == 3 and parts[0] in RETAINED_VERDICTS and parts[1] in ("images", "products")
        if age is None or not known:
            raise ValueError(
                f"{word} is no rule; allowed: VERDICT:WHAT:AGE, the verdict {', '.join(RETAINED_VERDICTS)}; "
                "images or products; the age in hours or days, 12h or 30d"
            )
        rules.append(RetentionRule(parts[0], parts[1], age))
    if not rules:
        raise ValueError("no rule is given")
    return tuple(rules)


def parse_threshold(text: str) -> tuple[float, Literal["Jy", "sigma"]]:
    """Read a CLEAN depth with its unit: "0.1mJy" is (0.0001, "Jy"), "5sigma" is (5.0, "sigma").

    Raises
    ------
    ValueError
        If it is not a positive number with one of the units Jy, mJy, uJy and sigma.
    """
    found = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([A-Za-z]+)\s*", text)
    units = {name.lower(): name for name in DEPTH_UNITS}
    try:
        unit = units[found[2].lower()] if found else ""
        value = float(found[1]) * DEPTH_UNITS[unit] if found else 0.0
    except (KeyError, ValueError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError("allowed: a positive number with a unit, for example 0.1mJy, 2e-4Jy or 5sigma")
    return value, "sigma" if unit == "sigma" else "Jy"
