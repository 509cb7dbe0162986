"""The import path that users' scripts know; the catalogues live in `dsa110_contimg.catalogs`."""

from dsa110_contimg.catalogs import query_first_sources, query_merged_nvss_first_sources, query_nvss_sources

__all__ = ["query_first_sources", "query_merged_nvss_first_sources", "query_nvss_sources"]
