"""Run the command line: the ``contimg`` script and ``python -m dsa110_contimg``."""

import sys


def run() -> None:
    """Run and exit with the status."""
    try:
        # Loading the numerical libraries takes a second, in which one may think better of it.
        from dsa110_contimg.cli import main
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    sys.exit(main())


if __name__ == "__main__":
    run()
