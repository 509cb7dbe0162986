"""Small Measurement Sets of any shape, filled with random visibilities."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import default_ms, makearrcoldesc, maketabdesc, table

N_ANTENNAS = 5
FIELDS = (("one", 1.0, 0.5), ("two", 1.2, 0.6), ("same", 1.0, 0.5))


def write(path: Path, *, channels=(4,), order="spw", dumps=3, fields=(0,), autos=True, columns=()):
    """All antenna pairs for every dump, field and window; windows one after the other, or row by row."""
    rng = np.random.default_rng(11)
    pairs = [(i, j) for i in range(N_ANTENNAS) for j in range(i if autos else i + 1, N_ANTENNAS)]
    rows = [
        (t, f, d, i, j) for t in range(dumps) for f in fields for d in range(len(channels)) for i, j in pairs
    ]
    if order == "interleaved":
        rows.sort(key=lambda r: (r[0], r[1], r[3], r[4], r[2]))
    described = [
        makearrcoldesc(n, v, ndim=2, valuetype=k)
        for n, v, k in (("DATA", 0j, "complex"), ("WEIGHT_SPECTRUM", 0.0, "float"))
    ]
    described += [makearrcoldesc(n, 0j, ndim=2, valuetype="complex") for n in columns]
    with default_ms(str(path), maketabdesc(described)) as main:
        main.addrows(len(rows))
        time_index, field, ddid, a1, a2 = (np.array(c) for c in zip(*rows, strict=True))
        for name, value in (
            ("TIME", 5e9 + 10.0 * time_index),
            ("FIELD_ID", field.astype(np.int32)),
            ("DATA_DESC_ID", ddid.astype(np.int32)),
            ("ANTENNA1", a1.astype(np.int32)),
            ("ANTENNA2", a2.astype(np.int32)),
            ("SCAN_NUMBER", (1 + time_index).astype(np.int32)),
            ("INTERVAL", np.full(len(rows), 10.0)),
            ("UVW", rng.normal(0, 100, (len(rows), 3))),
            ("WEIGHT", np.array([[1.0 + r, 2.0 + r] for r in range(len(rows))], dtype=np.float32)),
            ("SIGMA", np.ones((len(rows), 2), dtype=np.float32)),
        ):
            main.putcol(name, value)
        for r, d in enumerate(ddid):
            shape = (channels[d], 2)
            for name in ("DATA", *columns):
                main.putcell(
                    name, r, (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
                )
            main.putcell("FLAG", r, rng.random(shape) < 0.1)
            main.putcell("WEIGHT_SPECTRUM", r, rng.uniform(1, 2, shape).astype(np.float32))
    fill(path / "ANTENNA", N_ANTENNAS, NAME=[f"a{k}" for k in range(N_ANTENNAS)])
    with table(str(path / "ANTENNA"), readonly=False, ack=False) as sub:
        sub.putcol("POSITION", rng.normal(0, 100, (N_ANTENNAS, 3)))
        sub.putcol("DISH_DIAMETER", np.full(N_ANTENNAS, 4.65))
    fill(path / "FIELD", len(FIELDS), NAME=[f[0] for f in FIELDS])
    with table(str(path / "FIELD"), readonly=False, ack=False) as sub:
        for k, (_, ra, dec) in enumerate(FIELDS):
            for name in ("PHASE_DIR", "REFERENCE_DIR", "DELAY_DIR"):
                sub.putcell(name, k, np.array([[ra, dec]]))
    fill(path / "SPECTRAL_WINDOW", len(channels))
    with table(str(path / "SPECTRAL_WINDOW"), readonly=False, ack=False) as sub:
        for k, n in enumerate(channels):
            sub.putcell("CHAN_FREQ", k, 1.3e9 + 1e8 * k + 1e6 * np.arange(n))
            sub.putcell("CHAN_WIDTH", k, np.full(n, -1e6))
    fill(path / "POLARIZATION", 1)
    with table(str(path / "POLARIZATION"), readonly=False, ack=False) as sub:
        sub.putcell("CORR_TYPE", 0, np.array([5, 8], dtype=np.int32))
    fill(
        path / "DATA_DESCRIPTION", len(channels), SPECTRAL_WINDOW_ID=np.arange(len(channels), dtype=np.int32)
    )
    fill(path / "OBSERVATION", 1, TELESCOPE_NAME=["VLA"])
    return path


def fill(path, n, **columns):
    with table(str(path), readonly=False, ack=False) as sub:
        sub.addrows(n)
        for name, values in columns.items():
            sub.putcol(name, values)


@pytest.fixture(scope="session")
def write_ms():
    """Write a Measurement Set to a path."""
    return write


@pytest.fixture(scope="session")
def masters(tmp_path_factory):
    """Measurement Sets written so far, by their options: copying is cheaper than writing."""
    return tmp_path_factory.mktemp("masters"), {}


@pytest.fixture
def make_ms(tmp_path, masters):
    """A Measurement Set under a path not used before: casacore remembers tables by path."""
    folder, written = masters

    def make(name="obs.ms", **options):
        key = repr(sorted(options.items()))
        if key not in written:
            written[key] = write(folder / f"{len(written)}.ms", **options)
        shutil.copytree(written[key], tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def edit():
    """Open a table for changes."""

    def open_for_changes(path):
        return table(str(path), readonly=False, ack=False)

    return open_for_changes
