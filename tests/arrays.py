"""Arrays that tests simulate."""

from pathlib import Path

#: Thirty antennas within 600 m, of which tests take some, so that a small image holds the whole beam.
COMPACT = str(Path(__file__).parents[1] / "docs" / "how-to" / "core.txt")
