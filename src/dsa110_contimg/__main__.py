"""Run the command line: the ``contimg`` script and ``python -m dsa110_contimg``."""

import sys

from dsa110_contimg.cli import main


def run() -> None:
    """Run and exit with the status."""
    sys.exit(main())


if __name__ == "__main__":
    run()
