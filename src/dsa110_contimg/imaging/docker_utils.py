"""Published import path of the container: re-exports."""

from dsa110_contimg.imaging.wsclean.container import WSCleanContainer, get_wsclean_container
from dsa110_contimg.imaging.wsclean.mounts import convert_host_path_to_container

__all__ = ["WSCleanContainer", "convert_host_path_to_container", "get_wsclean_container"]
