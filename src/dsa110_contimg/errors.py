"""Every error the package raises on purpose, drawn as one tree.

::

    ContimgError
    ├── InputError                  exit 2   something handed in cannot be used
    │   ├── ConfigError                      an option, variable or configuration file
    │   ├── CatalogError
    │   │   ├── CatalogMissingError          no strip of that catalogue on disk
    │   │   ├── CatalogFormatError           a source file or strip that does not fit
    │   │   └── CatalogCoverageError         a cone reaches where no strip does
    │   ├── MeasurementSetError
    │   │   ├── ReferenceTableError          a table whose data are those of other tables
    │   │   └── SelectionError               a field or spectral window that is not there
    │   ├── CalTableError                    an initial calibration table
    │   ├── SeedError                        no sky model could be made from the catalogue
    │   │   └── SkyModelError                a file that holds a model of the sky cannot be used
    │   └── ResourceError                    disk, memory, permission, lock
    │       ├── PathOutsideMountError        a path that the container does not see
    │       └── StorageError                 the disk is full, read-only or does not answer
    ├── EngineError                 exit 3   an engine failed
    │   ├── ImagingError
    │   │   └── WSCleanError                 WSClean failed, or left its work unfinished
    │   ├── AxesError                        arrays that do not fit the axes of their container
    │   ├── DeadlineError                    a program ran past its deadline and was ended
    │   ├── UnforeseenError                  an exception that nobody raised on purpose
    │   └── ContainerError                   a container could not be started, used or stopped
    │       ├── ContainerEngineError         no Docker or podman that answers
    │       ├── ContainerImageError          the image is not there
    │       └── DeadMountError               a mounted file system does not answer
    └── NotImprovedError            exit 4   not improved, and improvement was required

Each carries three parts, *what*, *where* and *remedy*, and prints as one line.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AxesError",
    "CalTableError",
    "CatalogCoverageError",
    "CatalogError",
    "CatalogFormatError",
    "CatalogMissingError",
    "ConfigError",
    "ContainerEngineError",
    "ContainerError",
    "ContainerImageError",
    "ContimgError",
    "DeadMountError",
    "DeadlineError",
    "EngineError",
    "ImagingError",
    "InputError",
    "MeasurementSetError",
    "NotImprovedError",
    "PathOutsideMountError",
    "ReferenceTableError",
    "ResourceError",
    "SeedError",
    "SelectionError",
    "SkyModelError",
    "StorageError",
    "UnforeseenError",
    "WSCleanError",
]


class ContimgError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    what : str
        What is wrong, in a few words.
    where : object, optional
        The file, table, column or option concerned.
    remedy : str, optional
        What the user can do about it.
    """

    exit_code = 2

    def __init__(self, what: str, where: object = "", remedy: str = "") -> None:
        self.what = what
        self.where = str(where)
        self.remedy = remedy
        super().__init__(what, self.where, remedy)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.remedy:
            text += f"; {self.remedy}"
        return " ".join(text.split())


class InputError(ContimgError):
    """Something handed in cannot be used."""


class ConfigError(InputError):
    """An option, environment variable or configuration file is wrong."""


class CatalogError(InputError):
    """A catalogue cannot answer."""


class CatalogMissingError(CatalogError):
    """No strip of the wanted catalogue is on disk."""


class CatalogFormatError(CatalogError):
    """A catalogue source file or strip file does not have the expected form."""


class CatalogCoverageError(CatalogError):
    """A cone reaches where no strip does."""


class MeasurementSetError(InputError):
    """A Measurement Set is missing, incomplete or unusable."""


class ReferenceTableError(MeasurementSetError):
    """What is written to a table would land in another one."""


class SelectionError(MeasurementSetError):
    """The selected field, spectral window or rows are not there."""


class CalTableError(InputError):
    """An initial calibration table cannot be used."""


class SeedError(InputError):
    """No sky model could be made from the catalogue."""


class SkyModelError(SeedError):
    """A file that holds a model of the sky cannot be read, or not be predicted exactly."""


class ResourceError(InputError):
    """Disk, memory, permission or lock stands in the way."""


class PathOutsideMountError(ResourceError):
    """A path lies in none of the folders that a container sees."""


class StorageError(ResourceError):
    """A disk is full, read-only or does not answer."""


class EngineError(ContimgError):
    """An engine failed while it worked on good input."""

    exit_code = 3


class ImagingError(EngineError):
    """Imaging failed."""


class AxesError(EngineError, ValueError):
    """Arrays handed to a container do not fit the axes that it declares: a mistake in a program."""


class WSCleanError(ImagingError):
    """WSClean failed, or ended without what it was to write."""


class DeadlineError(EngineError):
    """A program ran past its deadline and was ended."""


class ContainerError(EngineError):
    """A container could not be started, used or stopped."""


class ContainerEngineError(ContainerError):
    """There is no Docker or podman, or it does not answer."""


class ContainerImageError(ContainerError):
    """The image is not there."""


class DeadMountError(ContainerError):
    """A mounted file system does not answer."""


class NotImprovedError(ContimgError):
    """The observation was not improved, and improvement was required."""

    exit_code = 4


class UnforeseenError(EngineError):
    """An exception that nobody raised on purpose."""

    @classmethod
    def of(
        cls, error: BaseException, memory_options: Sequence[str] = ("--memory-gb", "--size")
    ) -> UnforeseenError:
        """Say what an exception means; where memory is lacking, which options to lower, if any."""
        if isinstance(error, MemoryError):
            lower = f"lower {' or '.join(memory_options)}"
            return cls(
                "out of memory", remedy=lower if memory_options else "free some memory or give less data"
            )
        name = type(error).__name__
        return cls(f"internal error: {name}: {str(error) or name}", remedy="set CONTIMG_DEBUG=1 for details")
