"""Paths here and in the container."""

from pathlib import PurePosixPath

import pytest

from dsa110_contimg.errors import PathOutsideMountError, ResourceError
from dsa110_contimg.imaging.wsclean.container import WSCleanContainer
from dsa110_contimg.imaging.wsclean.mounts import convert_host_path_to_container, parse_mounts


def test_paths_by_component(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data2").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data2")
    host = str(tmp_path / "data")
    assert convert_host_path_to_container(f"{host}/a/../b.ms", host, "/data") == "/data/b.ms"
    assert convert_host_path_to_container(host, host, "/data") == "/data"
    for outside in ("data2/x.ms", "data/../x.ms", "link/x.ms", "."):
        with pytest.raises(PathOutsideMountError):
            convert_host_path_to_container(tmp_path / outside, host, "/data")
    nested = parse_mounts(f"{tmp_path}:/all:ro, {tmp_path}/data2:/two")
    made = WSCleanContainer(mounts=nested)
    assert made.path(tmp_path / "link" / "x") == "/two/x"
    assert made.path(tmp_path / "y") == "/all/y"
    assert [m.read_only for m in nested] == [True, False]
    assert parse_mounts("/d")[0].inside == PurePosixPath("/host/d")
    for wrong in ("data", "/d:inside", "/d:/i:rx"):
        with pytest.raises(ResourceError, match="is no mount"):
            parse_mounts(wrong)
