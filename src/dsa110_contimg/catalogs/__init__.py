"""Catalogues of the radio sky, kept on disk and answered offline.

A catalogue file of any known form (`formats`) becomes one SQLite file per declination strip (`store`), each
of which knows which part of the sky it covers; cones are cut from the strips exactly (`query`), and refused
where the strips do not reach. The few sources bright enough to matter at any distance are listed in `bright`.
"""

from dsa110_contimg.catalogs.bright import bright_sources
from dsa110_contimg.catalogs.formats import read_catalog
from dsa110_contimg.catalogs.query import query_cone, query_nvss_sources
from dsa110_contimg.catalogs.store import (
    BuildReport,
    Coverage,
    StripInfo,
    build_strips,
    catalog_info,
    default_catalog_dir,
)

__all__ = [
    "BuildReport",
    "Coverage",
    "StripInfo",
    "bright_sources",
    "build_strips",
    "catalog_info",
    "default_catalog_dir",
    "query_cone",
    "query_nvss_sources",
    "read_catalog",
]
