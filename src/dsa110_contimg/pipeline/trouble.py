"""What stands in the way of every observation alike: it is no fault of the one that met it."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Literal

from dsa110_contimg.catalogs import require_strips
from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.errors import CatalogFormatError, CatalogMissingError, ContimgError, StorageError

__all__ = ["Trouble", "catalogue_trouble", "seeds", "trouble_of"]

#: Disks that are full, read-only or away.
STORAGE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN})
#: The same in the words of casacore, which passes on no number.
SAID = tuple(os.strerror(number) for number in sorted(STORAGE))


@dataclass(frozen=True)
class Trouble:
    """Why nothing can be done at the moment.

    Attributes
    ----------
    kind : {"catalogue", "storage", "arrivals"}
        What is away.
    text : str
        What is wrong, where, and what to do.
    """

    kind: Literal["catalogue", "storage", "arrivals"]
    text: str


def seeds(config: PipelineConfig) -> bool:
    """Whether any observation is seeded, so that the catalogue has to be there."""
    return config.use_nvss_seeding and config.rollout > 0 and config.needs_catalog()


def catalogue_trouble(config: PipelineConfig) -> Trouble | None:
    """Look whether the catalogue that observations are seeded from is there and whole."""
    if not seeds(config):
        return None
    try:
        require_strips(config.catalog, config.catalog_dir)
    except (CatalogMissingError, CatalogFormatError) as error:
        return Trouble("catalogue", str(error))
    except OSError as error:
        return Trouble("catalogue", f"{config.catalog_dir}: {error.strerror or error}")
    return None


def trouble_of(error: BaseException) -> Trouble | None:
    """Tell what met an observation from what is wrong with it.

    Parameters
    ----------
    error : BaseException
        What ended the work; what caused it, and what it came up in, count as well.
    """
    link: BaseException | None = error
    for _ in range(20):
        if link is None:
            break
        if isinstance(link, CatalogMissingError | CatalogFormatError):
            return Trouble("catalogue", str(link))
        number = link.errno if isinstance(link, OSError) else None
        said = isinstance(link, RuntimeError) and any(words in str(link) for words in SAID)
        if isinstance(link, StorageError) or number in STORAGE or said:
            return Trouble("storage", str(error) if isinstance(error, ContimgError) else _plain(link))
        link = link.__cause__ or link.__context__
    return None


def _plain(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
