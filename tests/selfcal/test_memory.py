import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.calibration.pointing import fit_pointing
from dsa110_contimg.config import SelfCalConfig
from dsa110_contimg.errors import ResourceError
from dsa110_contimg.imaging.obs_context import open_observation
from dsa110_contimg.selfcal import memory
from dsa110_contimg.selfcal.averaged_data import Averaging
from dsa110_contimg.selfcal.memory import (
    available_bytes,
    pointing_bytes,
    require_available_memory,
    return_free_memory,
    sub_bands_of_window,
)
from dsa110_contimg.selfcal.model_visibilities import SkyVisibilities
from dsa110_contimg.selfcal.params import averaging_of
from dsa110_contimg.selfcal.pointing_statistics import gather_pointing
from dsa110_contimg.visibilities import VisibilityReader


def kernel(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return available_bytes(folder / "proc", folder / "cg")


MEMINFO = "MemTotal:  8000 kB\nMemFree:  1000 kB\nMemAvailable:  5000 kB\n"
GROUPS = {
    "none": ({}, 5000 * 1024),
    "version 2, no limit": (
        {"proc/self/cgroup": "0::/user/job\n", "cg/user/job/memory.max": "max\n"},
        5000 * 1024,
    ),
    "version 2, limit of the job": (
        {
            "proc/self/cgroup": "0::/user/job\n",
            "cg/user/job/memory.max": "3000000\n",
            "cg/user/job/memory.current": "2500000\n",
            "cg/user/job/memory.stat": "anon 1\ninactive_file 100000\n",
        },
        600000,
    ),
    "version 2, limit above the job": (
        {
            "proc/self/cgroup": "0::/user/job\n",
            "cg/user/memory.max": "3000000\n",
            "cg/user/memory.current": "2900000\n",
        },
        100000,
    ),
    "version 2, seen from within a container": (
        {"proc/self/cgroup": "0::/\n", "cg/memory.max": "2000\n", "cg/memory.current": "3000\n"},
        0,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "5:cpu,memory:/job\n1:name=systemd:/\n",
            "cg/memory/job/memory.limit_in_bytes": "9000\n",
            "cg/memory/job/memory.usage_in_bytes": "4000\n",
            "cg/memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
        },
        5500,
    ),
}


@pytest.mark.parametrize("case", GROUPS)
def test_the_tightest_limit_counts(case, tmp_path):
    files, expected = GROUPS[case]
    assert kernel(tmp_path, {"proc/meminfo": MEMINFO} | files) == expected


def test_this_machine_has_some_memory():
    total = next(x for x in Path("/proc/meminfo").read_text().splitlines() if x.startswith("MemTotal"))
    assert 0 < available_bytes() <= 1024 * int(total.split()[1])


def test_a_run_too_large_is_refused_before_it_begins(small_ms, monkeypatch):
    reader = VisibilityReader(small_ms, small_ms.select(), cache_bytes=1 << 30)
    require_available_memory(reader, 512**2)
    with pytest.raises(ResourceError, match=r"at least 120 GB .*--size") as caught:
        require_available_memory(reader, 50_000**2)
    assert "\n" not in str(caught.value)
    least = reader.samples * 8
    monkeypatch.setattr(memory, "available_bytes", lambda: least)
    with pytest.raises(ResourceError, match="--memory-gb below"):
        require_available_memory(reader, 64**2)


def test_statistics_by_sub_band_are_counted_and_bounded(small_ms, monkeypatch):
    reader = VisibilityReader(small_ms, small_ms.select(), cache_bytes=1 << 30)
    channels = small_ms.spectral_windows[0].freq_hz.size
    for spectral in ("auto", "delay", "bandpass"):
        assert sub_bands_of_window(reader, SelfCalConfig(spectral=spectral)) == min(channels, 16)
    assert sub_bands_of_window(reader, SelfCalConfig(spectral="off")) == 0
    assert sub_bands_of_window(reader, SelfCalConfig(use_nvss_seeding=False)) == 0
    # What nobody asked for stays within a part of the memory; what was asked for is demanded.
    assert sub_bands_of_window(reader, SelfCalConfig(memory_gb=1e-9)) == 0
    assert sub_bands_of_window(reader, SelfCalConfig(memory_gb=1e-9, spectral="delay")) == min(channels, 16)
    monkeypatch.setattr(memory, "available_bytes", lambda: 200e6)
    require_available_memory(reader, 64**2)
    with pytest.raises(ResourceError, match="out of memory"):
        require_available_memory(reader, 64**2, sub_bands=1_000_000)


def test_statistics_of_the_halves_of_a_sky_are_counted(small_ms, monkeypatch):
    reader = VisibilityReader(small_ms, small_ms.select(), cache_bytes=1 << 30)
    plain = reader.samples * 60 + 4 * 12 * 64**2
    monkeypatch.setattr(memory, "available_bytes", lambda: 2 * plain)
    require_available_memory(reader, 64**2, split_windows=1)
    with pytest.raises(ResourceError, match="out of memory"):
        require_available_memory(reader, 64**2, split_windows=1_000_000)


def test_averages_take_less_than_what_they_are_made_of(small_ms, monkeypatch, tmp_path):
    reader = VisibilityReader(small_ms, small_ms.select(), cache_bytes=1 << 30)

    class Halved(Averaging):
        def worthwhile(self, reader):
            return True

    monkeypatch.setattr(memory, "averaged_samples", lambda *_: reader.samples // 10)
    averaging = Halved(half_width_rad=0.02, sub_bands=1, memory_bytes=1e9, scratch=tmp_path)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1.0)
    with pytest.raises(ResourceError, match=r"at least (\S+) GB") as plain:
        require_available_memory(reader, 64**2)
    with pytest.raises(ResourceError, match=r"at least (\S+) GB") as averaged:
        require_available_memory(reader, 64**2, 0, averaging)
    needed = [float(str(e.value).split("at least ")[1].split(" GB")[0]) for e in (plain, averaged)]
    assert needed[1] < needed[0]


def test_what_pointing_offsets_need_is_counted(small_ms, monkeypatch):
    reader = VisibilityReader(small_ms, small_ms.select(), cache_bytes=1 << 30)
    needed = []
    monkeypatch.setattr(memory, "available_bytes", lambda: 1.0)
    for pointing in (False, True):
        with pytest.raises(ResourceError, match=r"at least (\S+) GB") as error:
            require_available_memory(reader, 1, pointing=pointing)
        needed.append(float(str(error.value).split("at least ")[1].split(" GB")[0]))
    assert needed[1] > needed[0]


def test_averages_leave_room_for_predictions_and_for_pointing(data, stage_config, tmp_path):
    averaging = [
        averaging_of(open_observation(data.reader.ms.path, config), tmp_path, config)
        for config in (stage_config.with_options(pointing="off"), stage_config)
    ]
    assert [a.models for a in averaging] == [2, 6]
    assert averaging[0].working_bytes == 0
    assert averaging[1].working_bytes > 0
    assert averaging[1].data_bytes < averaging[0].data_bytes < averaging[0].memory_bytes
    for a in averaging:
        predicted = a.models * a.data_bytes * 4 / 13
        assert a.data_bytes + predicted + a.working_bytes == pytest.approx(a.memory_bytes)
    # However much work needs, some of the data are kept.
    crowded = replace(averaging[1], working_bytes=1e12)
    assert crowded.data_bytes >= crowded.memory_bytes / 8


def test_what_is_counted_for_pointing_is_what_it_takes(data, solved):
    model, tables = SkyVisibilities(data.catalog_model), solved.last.tables
    counted = pointing_bytes(data.reader)
    for _ in range(2):
        # The second time what is predicted of the model is known, and what is compiled is there.
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        statistics = gather_pointing(data, model, solved.weights, (tables, tables), data.catalog_model)
        fit_pointing(statistics, 1.0, 0.01)
        taken = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
    assert counted / 4 < taken < 1.2 * counted


def test_what_was_freed_goes_back_to_the_machine():
    """Of many small arrays between others that stay, which the C library would keep."""
    # One of 30 MB that was freed makes it keep blocks of up to that size.
    large = np.ones(3_750_000)
    del large
    arrays = [np.ones(100_000) for _ in range(500)]
    stay = arrays[::50]
    del arrays
    before = resident()
    return_free_memory()
    assert resident() < before - 200e6
    assert all(a.sum() == 100_000 for a in stay)


def resident():
    """Resident memory in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))
