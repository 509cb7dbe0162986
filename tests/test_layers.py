"""Imports between the rooms of the package go only down."""

import ast
from collections.abc import Iterator
from pathlib import Path

import dsa110_contimg

PACKAGE = "dsa110_contimg"
ROOT = Path(dsa110_contimg.__file__).parent

# What each room may import besides itself and the ground floor.
MAY_IMPORT: dict[str, set[str]] = {
    "catalogs": set(),
    "sky": {"catalogs"},
    "visibilities": set(),
    "predict": {"sky", "visibilities"},
    "imaging": {"predict", "visibilities", "sky"},
    "calibration": {"predict", "visibilities", "sky", "imaging"},
    "simulate": {"sky", "predict", "visibilities"},
}
TOP = {"compare", "pipeline", "report"}
MAY_IMPORT |= {room: set(MAY_IMPORT) | TOP for room in TOP}
DOORS = {
    "cli",
    "cli_catalog",
    "cli_compare",
    "cli_container",
    "cli_pipeline",
    "terminal",
    "demo",
    "doctor",
    "score",
}
DOOR = {room: set(MAY_IMPORT) | DOORS for room in (*DOORS, "__main__")}
# A study scores its simulated observations against their truth.
MAY_IMPORT["compare"] |= {"score"}
GROUND = {"errors", "config", "progress"}
MAY_IMPORT = {room: below | GROUND for room, below in (MAY_IMPORT | DOOR).items()}
MAY_IMPORT |= {"errors": set(), "config": {"errors"}, "progress": set(), "__init__": set()}

# The published import path of the catalogues: one line that re-exports the room.
RE_EXPORTS = {"calibration/catalogs.py": "catalogs"}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(source: str, path: Path) -> Iterator[tuple[int, str]]:
    """Each import of the package's own rooms: line and room."""
    here = (PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(here[: -node.level]) if node.level else []
            base += node.module.split(".") if node.module else []
            # `from dsa110_contimg import sky` names the room only in its list.
            modules = [[*base, alias.name] for alias in node.names] if base == [PACKAGE] else [base]
        else:
            continue
        for parts in modules:
            if parts[0] == PACKAGE:
                room = parts[1] if len(parts) > 1 else "__init__"
                is_room = (ROOT / room).is_dir() or (ROOT / f"{room}.py").is_file()
                yield node.lineno, room if is_room else "__init__"


def violations(source: str, path: Path) -> list[str]:
    room, name = room_of(path), path.relative_to(ROOT).as_posix()
    allowed = MAY_IMPORT[room] | {room, "__init__", RE_EXPORTS.get(name, room)}
    found = imported_rooms(source, path)
    return [f"{name}:{line} imports {other}" for line, other in found if other not in allowed]


def test_every_room_has_its_place():
    rooms = {room_of(path) for path in ROOT.rglob("*.py")}
    assert rooms <= set(MAY_IMPORT), f"not in the layout: {sorted(rooms - set(MAY_IMPORT))}"


def test_imports_go_only_down():
    wrong = [v for path in sorted(ROOT.rglob("*.py")) for v in violations(path.read_text("utf-8"), path)]
    assert not wrong, "\n".join(wrong)


def test_upward_imports_are_seen_in_every_spelling():
    path = ROOT / "visibilities" / "probe.py"
    for source in (
        "import dsa110_contimg.predict.direct",
        "from dsa110_contimg.predict import direct",
        "from dsa110_contimg import predict",
        "from ..predict import direct",
        "from .. import predict",
    ):
        assert violations(source, path) == ["visibilities/probe.py:1 imports predict"], source


def test_re_export_of_the_catalogues_is_one_line():
    path = ROOT / "calibration" / "catalogs.py"
    if path.exists():
        assert [room for _, room in imported_rooms(path.read_text("utf-8"), path)] == ["catalogs"]
