"""Light curves: nothing doubled, nothing lost, and what varies is found."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from dsa110_contimg.cli.main import main
from dsa110_contimg.errors import InputError
from dsa110_contimg.files import write_table
from dsa110_contimg.pipeline import lightcurve_file
from dsa110_contimg.pipeline.lightcurve_file import open_database
from dsa110_contimg.pipeline.lightcurve_updates import LightCurveWriter, varying_sources
from dsa110_contimg.pipeline.lightcurves import LightCurves
from dsa110_contimg.pipeline.measured_sources import MeasuredSources
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.pipeline.variability import sums_of, variability
from dsa110_contimg.report import Limits
from dsa110_contimg.report.index import render_index
from tests.pipeline.light import FLUX, N_SOURCES, PLACES, write_sources
from tests.report.html_check import checked

NEW = (150.3, 54.2, 0.02)


def take(curves, folder, day, verdict="good", run_id="1"):
    return curves.take_in(folder, identity=f"day{day}", run_id=run_id, name=f"day{day}", verdict=verdict)


def content(path):
    db = open_database(path, readonly=True)
    tables = {
        t: [tuple(r) for r in db.execute(f"SELECT * FROM {t} ORDER BY 1, 2")]
        for t in ("source", "measurement", "flux_block")
    }
    db.close()
    return tables


def require_sums_of_curves(curves):
    table = curves.sources("catalogue")
    for row in table:
        curve = curves.curve(int(row["id"]))
        metrics = variability(sums_of(curve.flux_jy, curve.error_jy)[None])
        assert curve.mjd.size == row["n"]
        for name in ("mean_jy", "mean_error_jy", "modulation", "eta"):
            assert row[name] == pytest.approx(getattr(metrics, name)[0], rel=1e-7, nan_ok=True)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Twenty days; one source doubles in the second half, scales differ, one new source on two days."""
    folder = tmp_path_factory.mktemp("curves")
    with LightCurves(folder / "l.sqlite3") as curves:
        for day in range(20):
            factor = np.ones(N_SOURCES)
            factor[30] = 1 + (day >= 10)
            new = [NEW] if day in (5, 6) else []
            scale = 1 + 0.1 * np.sin(day)
            take(curves, write_sources(folder / f"d{day}", day, factor, scale, new), day)
        take(curves, write_sources(folder / "bad", 20, 3.0), 20, verdict="bad")
    return folder / "l.sqlite3"


def test_scales_of_observations_are_taken_out(filled):
    with LightCurves(filled, readonly=True) as curves:
        table = curves.sources("catalogue")
        scales = [o["ensemble"] for o in curves.observations() if o["counts"]]
        steady = np.arange(N_SOURCES) != 30
        order = np.argsort(table["mean_jy"])
        np.testing.assert_allclose(
            scales / np.mean(scales),
            (1 + 0.1 * np.sin(np.arange(20))) / np.mean(1 + 0.1 * np.sin(np.arange(20))),
            atol=0.02,
        )
        eta, n = np.asarray(table["eta"]), np.asarray(table["n"])
        assert (n == 20).all()
        assert len(order) == N_SOURCES
        variable = int(np.argmax(eta))
        assert table["name"][variable] == "s30"
        assert eta[np.asarray(table["name"]) != "s30"].mean() == pytest.approx(1, abs=0.15)
        assert table["intrinsic"][variable] == pytest.approx(np.std([1, 2] * 10, ddof=1) / 1.5, rel=0.05)
        assert steady.sum() == N_SOURCES - 1


def test_bad_observations_do_not_count(filled):
    with LightCurves(filled, readonly=True) as curves:
        last = curves.observations()[-1]
        assert (last["verdict"], last["counts"]) == ("bad", 0)
        assert curves.curve(curves.find(*PLACES[:, 0], 5.0)).mjd.max() == 60019


def test_sums_are_those_of_the_light_curves(filled):
    with LightCurves(filled, readonly=True) as curves:
        require_sums_of_curves(curves)


def test_the_order_of_observations_does_not_matter(tmp_path):
    """Twelve days of two overlapping halves of the field, one variable, taken in forwards and shuffled."""
    for day in range(12):
        factor = np.ones(N_SOURCES)
        factor[30] = 1 + day % 2
        folder = write_sources(tmp_path / f"d{day}", day, factor, 1 + 0.1 * np.sin(day))
        table = Table.read(folder / "sources.ecsv")
        write_table(folder / "sources.ecsv", table[:30] if day % 3 else table[8:])
    found = []
    for k, order in enumerate((range(12), np.random.default_rng(4).permutation(12))):
        with LightCurves(tmp_path / f"{k}.sqlite3") as curves:
            for day in order:
                take(curves, tmp_path / f"d{day}", int(day))
            table = curves.sources("catalogue")
            table.sort("name")
            found.append((table, [o["ensemble"] for o in curves.observations()]))
    (one, scales), (other, again) = found
    np.testing.assert_allclose(scales, again, rtol=1e-9)
    for name in ("mean_jy", "eta", "probability", "intrinsic"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-12)


def test_two_bands_are_two_light_curves(tmp_path):
    with LightCurves(tmp_path / "l.sqlite3") as curves:
        for day in range(8):
            folder = write_sources(tmp_path / f"d{day}", day, 1.0 if day % 2 else 0.5)
            table = Table.read(folder / "sources.ecsv")
            table.meta["freq_hz"] = 1.4e9 if day % 2 else 3.0e9
            if not day % 2:
                table["catalog_flux_jy"] *= 0.5
            write_table(folder / "sources.ecsv", table)
            take(curves, folder, day)
        table = curves.sources("catalogue")
        assert len(table) == 2 * N_SOURCES
        assert set(table["n"]) == {4}
        assert np.asarray(table["eta"]).max() < 8
        low, high = curves.curve(curves.find(*PLACES[:, 39], 5.0)).bands()
        assert (low.freq_hz[0], high.freq_hz[0]) == (1.4e9, 3.0e9)
        assert high.flux_jy.mean() == pytest.approx(low.flux_jy.mean() / 2, rel=0.1)


def test_twice_is_once_and_a_new_run_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "l.sqlite3"
    with LightCurves(path) as curves:
        for day in range(4):
            folder = write_sources(tmp_path / f"d{day}", day)
            assert take(curves, folder, day).changed
        before = content(path)
        assert not take(curves, tmp_path / "d2", 2).changed
        assert content(path) == before
        # Anew with other fluxes, and back again: all sums as before.
        write_sources(tmp_path / "d2", 2, 2.0, seed=5)
        assert take(curves, tmp_path / "d2", 2, run_id="2").changed
        assert content(path) != before
        # Judged bad the third time: it is gone from the sums.
        take(curves, tmp_path / "d2", 2, "bad", "3")
        table = curves.sources("catalogue")
        assert (np.asarray(table["n"]) == 3).all()
        require_sums_of_curves(curves)
        assert len(content(path)["measurement"]) == 3 * N_SOURCES


def test_killed_at_any_moment_nothing_is_doubled_or_lost(tmp_path):
    """A process that takes in twelve days is killed again and again."""
    for day in range(12):
        write_sources(tmp_path / f"d{day}", day, new=[NEW] if day == 3 else [])
    undisturbed = tmp_path / "whole.sqlite3"
    with LightCurves(undisturbed) as curves:
        for day in range(12):
            take(curves, tmp_path / f"d{day}", day)
    disturbed, killed = tmp_path / "l.sqlite3", 0
    for wait in (0.02, 0.05, 0.1, 0.2):
        child = os.fork()
        if child == 0:
            with LightCurves(disturbed) as curves:
                for day in range(12):
                    take(curves, tmp_path / f"d{day}", day)
            os._exit(0)
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert killed
    with LightCurves(disturbed) as curves:
        for day in range(12):
            take(curves, tmp_path / f"d{day}", day)
    assert content(disturbed) == content(undisturbed)


def test_a_new_source_is_looked_for_where_it_was_not_found(tmp_path):
    header = fits.Header({"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CRVAL1": 150.0, "CRVAL2": 54.0})
    more = {"CRPIX1": 129, "CRPIX2": 129, "CDELT1": -20 / 3600, "CDELT2": 20 / 3600, "BUNIT": "JY/BEAM"}
    header.update(more | {"BMAJ": 60 / 3600, "BMIN": 60 / 3600, "BPA": 0.0})
    with LightCurves(tmp_path / "l.sqlite3") as curves:
        take(curves, write_sources(tmp_path / "d0", 0, new=[NEW]), 0)
        folder = write_sources(tmp_path / "d1", 1)
        fits.writeto(folder / "final-difference.fits", np.full((256, 256), 1e-3, np.float32), header)
        take(curves, folder, 1)
        curve = curves.curve(curves.find(NEW[0], NEW[1], 5.0))
        assert curve.method == ["image", "forced"]
        scale = [o["ensemble"] for o in curves.observations()]
        assert curve.flux_jy[1] * scale[1] == pytest.approx(1e-3 / 0.5)
        assert curve.stat_error_jy[1] * scale[1] == pytest.approx(5e-4 / 0.5)
        found = curves.sources("new")
        assert (found["n"][0], found["n_detected"][0]) == (2, 1)


def test_the_peak_of_a_new_source_is_its_most_significant_flux(tmp_path):
    with LightCurves(tmp_path / "l.sqlite3") as curves:
        take(curves, write_sources(tmp_path / "d0", 0, new=[NEW]), 0)
        folder = write_sources(tmp_path / "d1", 1, new=[NEW])
        table = Table.read(folder / "sources.ecsv")
        table["flux_jy"][-1], table["stat_error_jy"][-1] = 3 * NEW[2], 2 * NEW[2]
        write_table(folder / "sources.ecsv", table)
        take(curves, folder, 1)
        found = curves.sources("new")
        assert found["peak_jy"][0] == pytest.approx(NEW[2], rel=0.1)
        assert found["peak_sigma"][0] > 5
        assert found["peak_mjd"][0] == 60000.0


def test_places_beyond_right_ascension_zero_are_seen_as_what_is_near_them(tmp_path):
    table = Table.read(write_sources(tmp_path / "d0", 0) / "sources.ecsv")[:2]
    table["ra_deg"], table["dec_deg"], table["response"] = [359.999, 1.0], [10.0, 10.0], [0.9, 0.1]
    place = np.array([0.0005]), np.array([10.0]), np.array([0.01])
    assert MeasuredSources.of(table).forced(*place).flux[0] == pytest.approx(0.01 / 0.9)


def test_sources_are_found_across_the_meridian_and_the_edge_of_zones(tmp_path):
    with LightCurves(tmp_path / "l.sqlite3") as curves:
        db = curves._db
        for k, (ra, dec) in enumerate([(0.0001, 10.0), (359.9999, 10.09999), (180.0, 89.95)]):
            db.execute(
                "INSERT INTO source (name, kind, ra_deg, dec_deg, zone, catalog_flux_jy)"
                " VALUES (?, ?, ?, ?, ?, 1)",
                (f"p{k}", "catalogue", ra, dec, int(np.floor(dec / 0.1))),
            )
        assert curves.find(359.9998, 10.0, 5.0) == 1
        assert curves.find(0.0002, 10.1001, 5.0) == 2
        assert curves.find(180.1, 89.95, 60.0) == 3
        with pytest.raises(InputError, match="no source within 5 arcsec"):
            curves.find(100.0, 10.0, 5.0)


def test_files_of_other_kinds_and_versions(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such file of light curves"):
        LightCurves(tmp_path / "none.sqlite3", readonly=True)
    with State(tmp_path / "s.sqlite3"), pytest.raises(InputError, match="later version"):
        LightCurves(tmp_path / "s.sqlite3")
    path = tmp_path / "l.sqlite3"
    LightCurves(path).close()
    monkeypatch.setattr(lightcurve_file, "SCHEMA_VERSION", 3)
    add = "ALTER TABLE observation ADD COLUMN night TEXT"
    monkeypatch.setitem(lightcurve_file.STEPS, 2, lambda db: db.execute(add))
    with pytest.raises(InputError, match="earlier version"):
        LightCurves(path, readonly=True)
    with LightCurves(path) as curves:
        assert "night" in [row[1] for row in curves._db.execute("PRAGMA table_info(observation)")]
    monkeypatch.undo()
    with pytest.raises(InputError, match="later version"):
        LightCurves(path)


def test_the_commands(filled, tmp_path, capsys, monkeypatch):
    def run(*words):
        assert main([str(w) for w in (*words, "--database", filled)]) == 0
        return capsys.readouterr().out

    found = json.loads(run("variables", "--json", "--out", tmp_path / "v.ecsv"))
    assert found["sources"][0]["name"] == "s30"
    assert found["n_variable"] <= 3
    assert len(Table.read(tmp_path / "v.ecsv")) == found["n_variable"]
    assert json.loads(run("variables", "--json", "--modulation", "0.9"))["n_variable"] == 0
    assert "s30" in run("variables")
    found = json.loads(run("transients", "--json", "--out", tmp_path / "t.vot"))
    assert (found["n_found"], found["sources"][0]["n_detected"]) == (1, 2)
    assert found["false_expected_single"] == pytest.approx(2.0)
    assert len(Table.read(tmp_path / "t.vot", format="votable")) == 1
    assert json.loads(run("transients", "--json", "--detections", "3"))["n_found"] == 0
    found = json.loads(run("lightcurve", *PLACES[:, 30], "--json", "--png", tmp_path / "s.png"))
    assert found["n"] == 20
    assert found["bands"][0]["metrics"]["eta"] > 100
    assert (tmp_path / "s.png").stat().st_size > 5000
    text = run("lightcurve", *PLACES[:, 30])
    assert f"{1e3 * FLUX[30]:.0f}"[:2] in text
    assert main(["lightcurve", "10", "10", "--database", str(filled)]) == 2
    assert main(["variables", "--database", str(filled), "--out", str(tmp_path / "v.txt")]) == 2
    monkeypatch.delenv("CONTIMG_STATE_FILE", raising=False)
    assert main(["variables"]) == 2


def test_the_page_of_all_observations_shows_what_varies(filled, tmp_path):
    found = varying_sources(filled.with_name("state.sqlite3"))
    assert found == []
    (tmp_path / "lightcurves.sqlite3").write_bytes(filled.read_bytes())
    found = varying_sources(tmp_path / "pipeline.sqlite3")
    assert (found[0].name, found[-1].name) == ("s30", "new0")
    page = render_index(tmp_path, [], Limits(3, 0.1, 1), varying=found)
    assert "Light curve of s30: 20 fluxes" in page
    assert "found in 2 of 2 observations" in page
    checked(page)


def done(name, run_id, quality="good"):
    return {
        "run_id": run_id, "observation": name, "status": "done", "message": "improved", "started": 1.0,
        "finished": 2.0, "published": "seeded", "seeded": True, "quality": quality, "seconds": {"total": 1.0},
    }  # fmt: skip


def test_what_a_killed_driver_missed_is_caught_up_once(tmp_path, caplog):
    with State(tmp_path / "s.sqlite3") as state:
        for day in range(3):
            state.add(f"o{day}", Path(f"/in/o{day}.ms"), tmp_path, float(day))
            o = state.find(Path(f"/in/o{day}.ms"))
            write_sources(o.folder / "seeded", day)
            state.start(o)
            state.finish(o, done(o.name, o.run_id))
        path = tmp_path / "l.sqlite3"
        assert LightCurveWriter(path, wanted=False).catch_up(state) == 0
        assert not path.exists()
        writer = LightCurveWriter(path)
        first = state.find(Path("/in/o0.ms"))
        writer.finished(first, done("o0", first.run_id))
        assert writer.catch_up(state) == 2
        assert writer.catch_up(state) == 0
        with LightCurves(path, readonly=True) as curves:
            assert (np.asarray(curves.sources("catalogue")["n"]) == 3).all()
        # Whatever the file holds, the observation is not harmed.
        path.write_bytes(b"nothing" * 1000)
        for end in ("-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
        writer.finished(first, done("o0", first.run_id))
        assert "not taken into the light curves" in caplog.text


def test_forgotten_and_put_back_observations_leave_the_light_curves(tmp_path):
    """Also where the command was killed before it came to them, and a driver begins."""
    path, made = tmp_path / "l.sqlite3", {}
    with State(tmp_path / "s.sqlite3") as state:
        for day in range(6):
            state.add(f"o{day}", Path(f"/in/o{day}.ms"), tmp_path, float(day))
            o = made[day] = state.find(Path(f"/in/o{day}.ms"))
            write_sources(o.folder / "seeded", day)
            state.start(o)
            state.finish(o, done(o.name, o.run_id))
        writer = LightCurveWriter(path)
        assert writer.catch_up(state) == 6
        state.forget(made[0])
        state.revert(made[1], "restored")
        assert writer.catch_up(state) == 0
        with LightCurves(path, readonly=True) as curves:
            assert [o["name"] for o in curves.observations()] == ["o2", "o3", "o4", "o5"]
        # What was put back and waits again is not what it published before.
        state.retry([state.find(made[1].ms)])
        assert writer.catch_up(state) == 0
        runs = state.runs_of(made[2])
        writer.withdraw(runs)
        with LightCurves(path, readonly=True) as curves:
            assert (np.asarray(curves.sources("catalogue")["n"]) == 3).all()
        # It was not forgotten: it comes back.
        assert writer.catch_up(state) == 1


def test_the_same_data_count_once_whatever_they_are_called(tmp_path):
    with LightCurves(tmp_path / "l.sqlite3") as curves:
        for run, name in enumerate(("first", "renamed", "copy")):
            folder = write_sources(tmp_path / name, 0)
            table = Table.read(folder / "sources.ecsv")
            table.meta["data_identity"] = "abc"
            write_table(folder / "sources.ecsv", table)
            arguments = {"identity": name, "run_id": str(run), "name": name, "verdict": "good"}
            assert curves.take_in(folder, **arguments, finished=10.0 + run).changed
            assert [o["name"] for o in curves.observations()] == [name]
        # An earlier run on them is not put in their place when it is looked at again.
        again = {"identity": "first", "run_id": "0", "name": "first", "verdict": "good"}
        assert not curves.take_in(tmp_path / "first", **again, finished=10.0).changed
        assert (np.asarray(curves.sources("catalogue")["n"]) == 1).all()
