"""Making the WSClean image from Debian packages, without an image registry."""

from __future__ import annotations

from pathlib import Path

from dsa110_contimg.config import DEFAULT_IMAGE
from dsa110_contimg.errors import ContainerImageError
from dsa110_contimg.imaging.wsclean.container_engine import Engine
from dsa110_contimg.imaging.wsclean.processes import run_program

__all__ = ["RECIPE", "build_image"]

#: A shell script that may be run by itself too.
RECIPE = Path(__file__).with_name("wsclean-image.sh")
BUILD_S = 1800.0


def build_image(engine: Engine, image: str = DEFAULT_IMAGE, tarball: Path | None = None) -> str:
    """Make the image and give its identifier; about a minute, seconds from a kept tarball.

    Parameters
    ----------
    engine : Engine
        Where it goes.
    image : str
        Its name.
    tarball : Path, optional
        Where its file system is kept; in the user's cache by default.

    Raises
    ------
    ContainerImageError
        If it cannot be made.
    """
    command = ["sh", str(RECIPE), engine.program, image, *([str(tarball)] if tarball else [])]
    done = run_program(command, BUILD_S)
    made = engine.image_id(image) if done.returncode == 0 else None
    if made is None:
        reason = "took too long" if done.returncode is None else _last(done.stderr)
        raise ContainerImageError(f"cannot be made: {reason}", image, f"try it by hand: sh {RECIPE}")
    return made


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
