"""What a call of WSClean costs: on the host, in the long-running container, and in a container for each call.

    python -m benchmarks.container_overhead [CALLS]

Needs `wsclean`, Docker and/or podman that answer, and the image in them (contimg container build). The
program is `wsclean -version`: nothing but the way to it is timed. The ways take turns, and medians are
compared.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from dsa110_contimg.config import DEFAULT_IMAGE
from dsa110_contimg.errors import ContainerError
from dsa110_contimg.imaging.wsclean.container import WSCleanContainer
from dsa110_contimg.imaging.wsclean.container_engine import find_engine
from dsa110_contimg.imaging.wsclean.mounts import Mount
from dsa110_contimg.imaging.wsclean.runner import HostWSClean


def plain(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with tempfile.TemporaryDirectory() as folder:
        host = HostWSClean("wsclean")
        ways: dict[str, Callable[[], object]] = {
            "on the host": lambda: plain(["wsclean", "-version"]),
            "on the host, by the runner": lambda: host.call(["-version"], 60),
        }
        opened = []
        for name in ("docker", "podman"):
            try:
                engine = find_engine(name)
            except ContainerError as error:
                sys.stderr.write(f"{error}\n")
                continue
            mount = Mount(Path(folder), PurePosixPath("/data"))
            container = WSCleanContainer(mounts=[mount], engine=engine.name)
            started = time.perf_counter()
            container.start()
            print(f"{name}: started in {time.perf_counter() - started:.2f} s")
            opened.append(container)
            run = [name, "run", "--rm", "--network=none", *engine.run_options(), f"--mount={mount.option()}"]
            exec_ = [name, "exec", container.container_name, "wsclean", "-version"]
            ways[f"{name} exec, nothing checked"] = lambda c=exec_: plain(c)
            ways[f"{name}, by WSCleanContainer"] = lambda c=container: c.wsclean(["-version"])
            ways[f"{name} run --rm"] = lambda c=[*run, DEFAULT_IMAGE, "wsclean", "-version"]: plain(c)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(calls):
            for way, call in ways.items():
                started = time.perf_counter()
                call()
                seconds[way].append(time.perf_counter() - started)
        for container in opened:
            started = time.perf_counter()
            container.stop()
            print(f"{container.engine.name}: stopped in {time.perf_counter() - started:.2f} s")
    base = statistics.median(seconds["on the host"])
    print(f"{'median of ' + str(calls) + ' calls':<34}{'ms':>8}{'over the host':>16}")
    for way, times in seconds.items():
        middle = statistics.median(times)
        print(f"{way:<34}{1e3 * middle:>8.0f}{middle / base:>15.1f}x")


if __name__ == "__main__":
    main()
