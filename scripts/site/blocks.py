"""Blocks of code in the documents."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["blocks_of"]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(document: Path, language: str) -> list[str]:
    """Return the fenced blocks of a document in one language, in their order."""
    return [text for named, text in FENCE.findall(document.read_text(encoding="utf-8")) if named == language]
