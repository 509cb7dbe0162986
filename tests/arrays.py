"""Arrays that tests simulate."""

from pathlib import Path

#: Twelve antennas within a kilometre, so that a small image holds the whole beam.
COMPACT = str(Path(__file__).with_name("compact.txt"))
