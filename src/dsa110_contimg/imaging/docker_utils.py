"""Published import path of the container: one line that re-exports it."""

from dsa110_contimg.imaging.container import (
    WSCleanContainer,
    convert_host_path_to_container,
    get_wsclean_container,
)

__all__ = ["WSCleanContainer", "convert_host_path_to_container", "get_wsclean_container"]
