"""Catalogues of the radio sky, kept on disk and answered offline.

A catalogue file of any known form (`file_formats`, `column_families`), fetched if need be (`download`),
becomes one SQLite file per declination strip (`build`, `strips`), each of which knows which part of the sky
it covers (`coverage`); cones are cut from the strips exactly (`query`), and refused where the strips do not
reach (`cone_coverage`). Surveys (`surveys`) are chosen (`choice`) and merged (`merge`) on the way out, and
two of them give spectral indices (`spectral_index`). The few sources bright enough to matter at any distance
are listed in `bright_sources`; how many there are beyond any list is in `source_counts`.
"""

from dsa110_contimg.catalogs.bright_sources import bright_sources
from dsa110_contimg.catalogs.build import BuildReport, build_strips, catalog_info, migrate_strips
from dsa110_contimg.catalogs.choice import surveys_built
from dsa110_contimg.catalogs.column_families import read_catalog
from dsa110_contimg.catalogs.cone_coverage import Cover
from dsa110_contimg.catalogs.coverage import Coverage
from dsa110_contimg.catalogs.query import (
    cover_of,
    query_cone,
    query_first_sources,
    query_listed,
    query_merged_nvss_first_sources,
    query_nvss_sources,
    require_strips,
)
from dsa110_contimg.catalogs.strips import StripInfo, default_catalog_dir
from dsa110_contimg.catalogs.surveys import CATALOGS, CHOICES, SURVEYS

__all__ = [
    "CATALOGS",
    "CHOICES",
    "SURVEYS",
    "BuildReport",
    "Cover",
    "Coverage",
    "StripInfo",
    "bright_sources",
    "build_strips",
    "catalog_info",
    "cover_of",
    "default_catalog_dir",
    "migrate_strips",
    "query_cone",
    "query_first_sources",
    "query_listed",
    "query_merged_nvss_first_sources",
    "query_nvss_sources",
    "read_catalog",
    "require_strips",
    "surveys_built",
]
