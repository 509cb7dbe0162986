"""Catalogues of the radio sky, kept on disk and answered offline.

A catalogue file of any known form (`containers`, `formats`), fetched if need be (`download`), becomes one
SQLite file per declination strip (`store`, `strips`), each of which knows which part of the sky it covers
(`coverage`); cones are cut from the strips exactly (`query`), and refused where the strips do not reach. NVSS
and FIRST are merged on the way out (`merge`). The few sources bright enough to matter at any distance are
listed in `bright`.
"""

from dsa110_contimg.catalogs.bright_sources import bright_sources
from dsa110_contimg.catalogs.build import BuildReport, build_strips, catalog_info, migrate_strips
from dsa110_contimg.catalogs.column_families import read_catalog
from dsa110_contimg.catalogs.coverage import Coverage
from dsa110_contimg.catalogs.query import (
    query_cone,
    query_first_sources,
    query_merged_nvss_first_sources,
    query_nvss_sources,
    require_strips,
)
from dsa110_contimg.catalogs.strips import StripInfo, default_catalog_dir
from dsa110_contimg.catalogs.surveys import CATALOGS, SURVEYS

__all__ = [
    "CATALOGS",
    "SURVEYS",
    "BuildReport",
    "Coverage",
    "StripInfo",
    "bright_sources",
    "build_strips",
    "catalog_info",
    "default_catalog_dir",
    "migrate_strips",
    "query_cone",
    "query_first_sources",
    "query_merged_nvss_first_sources",
    "query_nvss_sources",
    "read_catalog",
    "require_strips",
]
