from pathlib import Path

import pytest

from dsa110_contimg.errors import ResourceError
from dsa110_contimg.selfcal import memory
from dsa110_contimg.selfcal.memory import available_bytes, require_available_memory
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
