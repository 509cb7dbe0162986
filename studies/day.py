"""A compressed day of the service: arrivals one after the other, and everything goes away once.

    python -m studies.day FOLDER [--arrivals 300] [--apart 1.6] [--bad 15]

A small observation of random phases arrives under as many names as an observing day has, bad ones (truncated,
fully flagged, of an unknown telescope, unreadable) among them, into a folder that ``contimg watch`` looks
into, two workers. A supervisor starts the service again when it ends, as systemd would; a Prometheus with the
configuration and the rules of ``deploy/`` watches it. In between the catalogue is removed, the disk of the
products is filled, an arrival hangs (a pipe in the place of a column), the driver is killed, the state is
damaged, and the folders of products and arrivals are moved. What an operator would do about each is done here
once the alert has come, and no earlier.

Printed: for each trouble the seconds until somebody was told, and at the end what became of every arrival:
how often it was calibrated and published, seeded or not, its phase error against the truth, DATA by its hash.

It needs root, for a disk that can be filled (a tmpfs), and Prometheus.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from dsa110_contimg.catalogs import build_strips
from dsa110_contimg.compare.score import score_run
from dsa110_contimg.config import SimulationConfig
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.simulate import simulate
from dsa110_contimg.visibilities.measurement_set import data_hash
from tests.pipeline.conftest import OPTIONS, free_port, wait_until
from tests.pipeline.test_driver import ends, flag, other_telescope, truncate, unreadable

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
DISK_MB = 4096
#: Seconds after which a service that has ended is started again.
RESTART_S = 2.0
SPOIL = (truncate, flag, other_telescope, unreadable)


class Service:
    """``contimg watch`` under a supervisor."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.incoming, self.out = folder / "incoming", folder / "disk" / "out"
        self.process: subprocess.Popen[bytes] | None = None
        self.wanted = True
        self.starts = 0
        self.log = (folder / "service.log").open("ab")
        threading.Thread(target=self._supervise, daemon=True).start()

    @property
    def state(self) -> Path:
        return self.out / "pipeline.sqlite3"

    def _supervise(self) -> None:
        while True:
            if self.wanted:
                words = [sys.executable, "-m", "dsa110_contimg", "watch", self.incoming, self.out]
                words += ["--workers", 2, "--threads", 1, "--worker-memory-gb", 4, "--size", 256]
                words += ["--settle-s", 2, "--poll-s", 5, "--give-up-s", 45, "--metrics-port", self.port]
                words += ["--catalog-dir", self.folder / "c"]
                self.process = subprocess.Popen([str(w) for w in words], stdout=self.log, stderr=self.log)
                self.starts += 1
                self.process.wait()
            time.sleep(RESTART_S if self.wanted else 0.1)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.wanted = False
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Operator:
    """Asks Prometheus what fires, and looks at what became of it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address = f"http://127.0.0.1:{free_port()}"
        shutil.copy(DEPLOY / "contimg-alerts.yml", folder)
        text = (DEPLOY / "prometheus.yml").read_text().replace("127.0.0.1:9469", f"127.0.0.1:{port}")
        (folder / "prometheus.yml").write_text(text)
        words = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        words += [f"--web.listen-address={self.address.removeprefix('http://')}"]
        log = (folder / "prometheus.log").open("wb")
        self.process = subprocess.Popen(["prometheus", *words], stdout=log, stderr=log)
        self.told: list[tuple[str, str, float]] = []

    def firing(self) -> set[str]:
        try:
            with urllib.request.urlopen(f"{self.address}/api/v1/alerts", timeout=5) as answer:
                found = json.load(answer)["data"]["alerts"]
        except OSError:
            return set()
        return {a["labels"]["alertname"] for a in found if a["state"] == "firing"}

    def wait_for(self, alert: str, trouble: str, since: float, seconds: float = 300.0) -> None:
        """Wait until an alert fires; note how long it took."""
        wait_until(lambda: alert in self.firing(), f"{alert} for {trouble}", seconds)
        self.told.append((trouble, alert, time.monotonic() - since))
        print(f"{trouble}: {alert} after {self.told[-1][2]:.0f} s", flush=True)

    def wait_until_over(self, alert: str) -> None:
        wait_until(lambda: alert not in self.firing(), f"the end of {alert}", 300.0)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "contimg-day", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def no_catalogue(service: Service, operator: Operator) -> None:
    catalogue, begun = service.folder / "c", time.monotonic()
    catalogue.rename(service.folder / "away")
    operator.wait_for("ContimgPaused", "catalogue removed", begun)
    (service.folder / "away").rename(catalogue)
    operator.wait_until_over("ContimgPaused")


def full_disk(service: Service, operator: Operator) -> None:
    begun, filler = time.monotonic(), service.folder / "disk" / "filler"
    with filler.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 20))
        except OSError:
            pass
    operator.wait_for("ContimgPaused", "disk filled", begun)
    filler.unlink()
    operator.wait_until_over("ContimgPaused")


def hung_arrival(service: Service, operator: Operator) -> None:
    ms, begun = service.folder / "hangs.ms", time.monotonic()
    column = max(ms.glob("table.f*"), key=lambda p: p.stat().st_size)
    column.unlink()
    os.mkfifo(column)
    ms.rename(service.incoming / ms.name)
    operator.wait_for("ContimgArrivalHangs", "arrival that hangs", begun)
    shutil.rmtree(service.incoming / ms.name)
    operator.wait_until_over("ContimgArrivalHangs")


def killed_driver(service: Service, operator: Operator) -> None:
    starts = service.starts
    service.kill()
    wait_until(lambda: service.starts > starts, "the supervisor starts it again", 30)
    print("driver killed: started again by the supervisor, nobody has to be told", flush=True)


def damaged_state(service: Service, operator: Operator) -> None:
    service.kill()
    begun = time.monotonic()
    with service.state.open("r+b") as file:
        for at in range(4096, service.state.stat().st_size, 4096):
            file.seek(at)
            file.write(b"\xff" * 64)
    service.state.with_name(service.state.name + "-wal").unlink(missing_ok=True)
    operator.wait_for("ContimgDown", "state damaged", begun)
    service.stop()
    words = [sys.executable, "-m", "dsa110_contimg", "state", "rebuild", str(service.out)]
    print(subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip(), flush=True)
    service.wanted = True
    operator.wait_until_over("ContimgDown")


def moved_folders(service: Service, operator: Operator) -> None:
    service.stop()
    begun = time.monotonic()
    for name in ("incoming", "out"):
        old = getattr(service, name)
        setattr(service, name, old.rename(old.with_name(f"{name}-moved")))
    operator.wait_for("ContimgDown", "folders moved, service stopped", begun)
    service.wanted = True
    operator.wait_until_over("ContimgDown")


#: After which part of the arrivals what goes wrong.
TROUBLES: dict[float, Callable[[Service, Operator], None]] = {
    0.1: no_catalogue,
    0.25: full_disk,
    0.4: hung_arrival,
    0.55: killed_driver,
    0.7: damaged_state,
    0.85: moved_folders,
}


def account(service: Service, arrived: dict[str, str | None], hashed: str) -> None:
    """Say what became of every arrival."""
    with State(service.state, create=False) as state:
        found = {o.name: o for o in state.observations()}
        records = {o.name: state.record(o) or {} for o in found.values()}
    made = ends(service.out)
    good = [name for name, spoilt in arrived.items() if spoilt is None]
    bad = [name for name, spoilt in arrived.items() if spoilt is not None]
    print(f"\n{len(good)} good arrivals")
    print("  status:", dict(Counter(found[n].status if n in found else "LOST" for n in good)))
    print(
        "  published:",
        dict(Counter((found[n].quality, "seeded" if found[n].seeded else "UNSEEDED") for n in good)),
    )
    print("  calibrated to the end so many times:", dict(Counter(made[n] for n in good)))
    images = Counter((service.out / n / "image.fits").is_file() for n in good)
    print("  image in its place:", dict(images))
    hashes = Counter(data_hash(service.incoming / f"{n}.ms") == hashed for n in good)
    print("  DATA as it arrived:", dict(hashes))
    if not (old := service.folder / "incoming").exists():
        # Summaries name the Measurement Sets by their places of the time.
        old.symlink_to(service.incoming)
    errors = sorted(
        score_run(service.out / n / "seeded", service.folder / "o.truth.npz", image=False)["phase_error_deg"]
        for n in good[:: max(1, len(good) // 20)]
    )
    print(
        f"  phase error of {len(errors)}: median {errors[len(errors) // 2]:.2f}, worst {errors[-1]:.2f} deg"
    )
    print(f"{len(bad)} bad arrivals")
    for name in bad:
        what = records[name].get("message", "") if name in found else "LOST"
        print(f"  {name} ({arrived[name]}): {found[name].status if name in found else ''}: {what}")
    others = set(found) - set(arrived)
    print("others in the state:", ", ".join(sorted(others)) or "none")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arrivals", type=int, default=300)
    parser.add_argument("--apart", type=float, default=1.6, help="seconds between arrivals")
    parser.add_argument("--bad", type=int, default=15)
    given = parser.parse_args()
    folder: Path = given.folder.resolve()
    folder.mkdir(parents=True)
    source = folder / "o.ms"
    simulate(source, SimulationConfig(random_phases=True, **OPTIONS))
    build_strips("nvss", folder / "o.catalog.ecsv", folder / "c")
    (folder / "incoming").mkdir()
    shutil.copytree(source, folder / "hangs.ms")
    hashed, begin = data_hash(source), datetime(2026, 1, 25)
    apart = timedelta(seconds=86400 / given.arrivals)
    arrived: dict[str, str | None] = {}
    troubles = {int(part * given.arrivals): what for part, what in TROUBLES.items()}
    with small_disk(folder / "disk"):
        port, started = free_port(), time.monotonic()
        service, operator = Service(folder, port), Operator(folder, port)
        try:
            acting: list[threading.Thread] = []
            for k in range(given.arrivals):
                name = f"{begin + k * apart:%Y-%m-%dT%H:%M:%S}"
                staged = Path(shutil.copytree(source, folder / "staged.ms"))
                which, odd = divmod(k, given.arrivals // given.bad)
                spoil = SPOIL[which % len(SPOIL)] if odd == 7 else None
                if spoil:
                    spoil(staged)
                staged.rename(service.incoming / f"{name}.ms")
                arrived[name] = spoil.__name__ if spoil else None
                if k in troubles:
                    for thread in acting:
                        thread.join()
                    acting = [threading.Thread(target=troubles[k], args=(service, operator))]
                    acting[0].start()
                time.sleep(given.apart)
            for thread in acting:
                thread.join()

            def finished() -> bool:
                with State(service.state, create=False) as state:
                    counts = state.counts()
                done = counts["done"] + counts["failed"]
                return done >= given.arrivals and not counts["queued"] + counts["running"]

            wait_until(finished, "all is worked off", 1800)
            print(f"{time.monotonic() - started:.0f} s, {service.starts} starts of the service")
            service.stop()
            account(service, arrived, hashed)
            today = ["report", "--day", "today", "--state-file", str(service.state)]
            subprocess.run([sys.executable, "-m", "dsa110_contimg", *today], check=True)
            print("\n| trouble | alert | seconds |\n| --- | --- | --- |")
            for trouble, alert, seconds in operator.told:
                print(f"| {trouble} | {alert} | {seconds:.0f} |")
        finally:
            service.wanted = False
            if service.process and service.process.poll() is None:
                service.process.kill()
            operator.process.terminate()


if __name__ == "__main__":
    main()
