"""Preloaded by the schedulers and workers of Dask: their HTTP servers, which answer anybody, are closed."""

from __future__ import annotations

from typing import Any

__all__ = ["dask_setup"]


def dask_setup(server: Any) -> None:
    """Close the HTTP server of a scheduler or worker; Dask has no option to start none."""
    server.http_server.stop()
