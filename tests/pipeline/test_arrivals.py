"""A folder being filled: what is taken, when, and what never."""

import os
import shutil
import time
from contextlib import closing

import psutil
import pytest
from casacore.tables import table

from dsa110_contimg.errors import ResourceError
from dsa110_contimg.pipeline import arrivals as module
from dsa110_contimg.pipeline.arrivals import Arrivals, fingerprint
from dsa110_contimg.pipeline.probe import Look, look_into


@pytest.fixture
def incoming(tmp_path):
    folder = tmp_path / "incoming"
    folder.mkdir()
    return folder


@pytest.fixture
def watch(incoming, config):
    """Make arrivals of the folder, with lists of what is known and refused."""
    made = []

    def make(**options):
        arrivals = Arrivals(
            incoming,
            config.with_options(**{"settle_s": 0.3, "poll_s": 0.05} | options),
            lambda ms: ms.name in arrivals.taken,
            lambda ms, why: arrivals.refused.append((ms.name, why)),
        )
        arrivals.taken, arrivals.refused = set(), []
        made.append(arrivals)
        return arrivals

    yield make
    for arrivals in made:
        arrivals.close()


def names(paths):
    return [p.name for p in paths]


def look(arrivals, seconds, until=None):
    """Scan for some seconds, or until something comes; return what came."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end and not (until and found):
        found += arrivals.scan()
        arrivals.taken |= set(names(found))
        time.sleep(0.05)
    return names(found)


def test_slow_copies_are_not_taken_early(tiny, incoming, watch):
    """File by file, with pauses that are shorter than the settling time; every stage is looked at."""
    arrivals = watch()
    source, target = tiny / "tiny.ms", incoming / "slow.ms"
    files = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file())
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        content = (source / file).read_bytes()
        for part in (content[: len(content) // 2], content[len(content) // 2 :]):
            with (target / file).open("ab") as out:
                out.write(part)
            assert arrivals.scan() == [], file
            time.sleep(0.01)
    assert arrivals.waiting == 1
    assert look(arrivals, 30, until=True) == ["slow.ms"]
    assert arrivals.waiting == 0


@pytest.mark.parametrize("table", ["FIELD", "HISTORY"])
def test_a_copy_that_stalls_is_not_taken_while_it_cannot_be_read(tiny, incoming, watch, table):
    """Nor while one of the tables is missing that calibration does not need."""
    arrivals = watch()
    shutil.copytree(tiny / "tiny.ms", incoming / "stalled.ms")
    missing = incoming / "stalled.ms" / table
    missing.rename(incoming / table)
    assert look(arrivals, 4) == []
    (incoming / table).rename(missing)
    assert look(arrivals, 30, until=True) == ["stalled.ms"]


@pytest.mark.parametrize("how", ["no table", "short column", "no subtable"])
def test_what_cannot_be_read_is_handed_on_in_the_end(tiny, incoming, watch, how, caplog):
    """So that it is accounted for as failed, not waited for without end; why it waits is said, once."""
    caplog.set_level("INFO", logger="dsa110_contimg.pipeline.arrivals")
    arrivals = watch(give_up_s=1.0)
    ms = incoming / "bad.ms"
    shutil.copytree(tiny / "tiny.ms", ms)
    if how == "no table":
        (ms / "table.dat").unlink()
    elif how == "no subtable":
        shutil.rmtree(ms / "SPECTRAL_WINDOW")
    else:
        largest = max(ms.glob("table.f*"), key=lambda p: p.stat().st_size)
        os.truncate(largest, largest.stat().st_size // 2)
    found = look_into(ms)
    assert found.state == "incomplete"
    assert look(arrivals, 30, until=True) == ["bad.ms"]
    (said,) = [r.getMessage() for r in caplog.records if getattr(r, "event", "") == "incomplete"]
    assert said.endswith(f"bad.ms': {found.why}")


def test_the_closing_marker_is_waited_for(tiny, incoming, watch):
    arrivals = watch(marker=".done", settle_s=0.1, give_up_s=0.2)
    shutil.copytree(tiny / "tiny.ms", incoming / "a.ms")
    assert look(arrivals, 1.5) == []
    (incoming / "a.ms.done").touch()
    assert look(arrivals, 30, until=True) == ["a.ms"]


def test_oldest_first(tiny, incoming, watch):
    arrivals = watch()
    for hour in (7, 5, 6):
        shutil.copytree(tiny / "tiny.ms", incoming / f"2026-01-25T0{hour}:00:00.ms")
    arrivals.scan()
    time.sleep(0.4)
    found = names(arrivals.scan())
    assert found == [f"2026-01-25T0{hour}:00:00.ms" for hour in (5, 6, 7)]


def test_names_and_links_that_are_not_to_be_trusted(tiny, incoming, watch, tmp_path):
    arrivals = watch(settle_s=0.0)
    shutil.copytree(tiny / "tiny.ms", tmp_path / "elsewhere.ms")
    (incoming / "link.ms").symlink_to(tmp_path / "elsewhere.ms")
    for name in ("$(touch x).ms", "-rf.ms", "new\nline.ms"):
        (incoming / name).mkdir()
    shutil.copytree(tiny / "tiny.ms", incoming / "led-out.ms")
    (incoming / "led-out.ms" / "ANTENNA" / "out").symlink_to(tmp_path / "elsewhere.ms" / "table.dat")
    (incoming / "file.ms").touch()
    (incoming / "other.txt").touch()
    for _ in range(3):
        assert arrivals.scan() == []
    refused = dict(arrivals.refused)
    assert len(arrivals.refused) == len(refused) == 6
    assert "symbolic link" in refused["link.ms"]
    assert "symbolic link" in refused["led-out.ms"]
    assert "no name" in refused["$(touch x).ms"]
    assert arrivals.waiting == 0


def test_readers_do_not_make_it_look_like_growing(tiny, tmp_path):
    ms = shutil.copytree(tiny / "tiny.ms", tmp_path / "read.ms")
    before = fingerprint(ms)
    assert look_into(ms) == Look("whole")
    assert fingerprint(ms) == before


def test_a_folder_that_goes_away_for_a_while(incoming, watch, tiny, caplog):
    arrivals = watch(settle_s=0.0)
    incoming.rename(incoming.with_name("away"))
    assert arrivals.scan() == []
    assert arrivals.scan() == []
    assert arrivals.away == "No such file or directory"
    assert caplog.text.count("No such file") == 1
    incoming.with_name("away").rename(incoming)
    shutil.copytree(tiny / "tiny.ms", incoming / "a.ms")
    assert names(arrivals.scan()) == ["a.ms"]
    assert arrivals.away == ""


def test_what_takes_the_place_of_a_refused_one_is_looked_at(tiny, incoming, watch, tmp_path):
    arrivals, ms = watch(settle_s=0.0), incoming / "a.ms"
    ms.symlink_to(tiny / "tiny.ms")
    for _ in range(3):
        assert arrivals.scan() == []
    assert len(arrivals.refused) == 1
    ms.unlink()
    shutil.copytree(tiny / "tiny.ms", ms)
    assert look(arrivals, 20, until=True) == ["a.ms"]
    assert len(arrivals.refused) == 1


def test_a_folder_that_never_was(tmp_path, config):
    with pytest.raises(ResourceError, match="no such folder"):
        Arrivals(tmp_path / "none", config, lambda _: False, lambda *_: None)


def children():
    return psutil.Process().children(recursive=True)


def test_one_that_hangs_keeps_nothing_else_waiting(tiny, incoming, watch, monkeypatch):
    """A pipe in the place of a column, as a file on a network disk that does not answer."""
    monkeypatch.setattr(module, "PROBE_S", 6.0)
    hangs = shutil.copytree(tiny / "tiny.ms", incoming / "2026-01-25T00:00:00.ms")
    column = max(hangs.glob("table.f*"), key=lambda p: p.stat().st_size)
    column.unlink()
    os.mkfifo(column)
    good = shutil.copytree(tiny / "tiny.ms", incoming / "2026-01-25T01:00:00.ms")
    arrivals = watch(settle_s=0, give_up_s=8)
    assert look(arrivals, 15, until=True) == [good.name]
    assert not arrivals.refused
    end = time.monotonic() + 60
    while not arrivals.refused:
        assert time.monotonic() < end
        begun = time.monotonic()
        assert arrivals.scan() == []
        assert time.monotonic() - begun < module.ANSWERS_AT_ONCE_S + 2
        time.sleep(0.1)
    assert arrivals.refused == [(hangs.name, "does not answer when it is read")]
    assert arrivals.hung == [hangs]
    # It answers again: nobody has to start the service anew.
    monkeypatch.setattr(
        module.time, "monotonic", lambda clock=time.monotonic: clock() + module.LONGEST_WAIT_S
    )
    column.unlink()
    shutil.copy(good / column.name, column)
    assert look(arrivals, 15, until=True) == [hangs.name]
    assert len(arrivals.refused) == 1
    assert arrivals.hung == []
    arrivals.close()
    end = time.monotonic() + 10
    while any(p.status() != "zombie" and "spawn_main" in " ".join(p.cmdline()) for p in children()):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("kind", ["reference", "concatenation"])
def test_tables_that_refer_to_others_are_refused(tiny, incoming, watch, tmp_path, kind):
    outside = shutil.copytree(tiny / "tiny.ms", tmp_path / "outside.ms")
    arrived = incoming / "2026-01-25T00:00:00.ms"
    if kind == "reference":
        with closing(table(str(outside), ack=False)) as whole:
            whole.query("ANTENNA1 < 6", name=str(arrived)).close()
    else:
        other = shutil.copytree(tiny / "tiny.ms", tmp_path / "other.ms")
        with closing(table([str(outside), str(other)], ack=False)) as both:
            both.rename(str(arrived))
    arrivals = watch(settle_s=0)
    assert look(arrivals, 10) == []
    ((name, why),) = arrivals.refused
    assert name == arrived.name
    assert str(outside) in why
    assert "not written to through it" in why
