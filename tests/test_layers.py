"""Imports between the rooms of the package go only down."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dsa110_contimg

PACKAGE = "dsa110_contimg"
ROOT = Path(dsa110_contimg.__file__).parent

# What each room may import besides itself and the ground floor, from the ground up.
GROUND = {"errors", "settings", "config", "progress", "array_types", "files", "sphere"}
FLOORS: dict[str, set[str]] = {
    "catalogs": set(),
    "visibilities": set(),
    "sky": {"catalogs"},
    "predict": {"sky", "visibilities"},
    "imaging": {"predict", "sky", "visibilities"},
    "calibration": {"predict", "sky", "visibilities", "imaging"},
    "selfcal": {"calibration", "imaging", "predict", "sky", "visibilities"},
    "report": {"selfcal", "calibration", "imaging", "predict", "sky", "visibilities"},
    "simulate": {"predict", "sky", "visibilities"},
}
FLOORS["compare"] = set(FLOORS)
FLOORS["pipeline"] = set(FLOORS)
FLOORS["cli"] = set(FLOORS)
MAY_IMPORT = {room: below | GROUND for room, below in FLOORS.items()}
MAY_IMPORT |= {
    "errors": set(),
    "array_types": set(),
    "sphere": {"array_types"},
    "progress": set(),
    "settings": {"errors"},
    "config": {"errors", "settings"},
    "files": {"errors"},
    "__init__": set(),
    "__main__": {"cli"},
}

# Published import paths: re-exports of rooms above.
RE_EXPORTS = {"calibration/selfcal.py": "selfcal", "calibration/catalogs.py": "catalogs"}


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


def test_published_paths_only_re_export():
    for name, room in RE_EXPORTS.items():
        path = ROOT / name
        source = path.read_text("utf-8")
        assert [found for _, found in imported_rooms(source, path)] == [room], name
        kinds = {type(node) for node in ast.parse(source).body}
        assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}, name


def modules_imported(path: Path) -> set[str]:
    """Modules of the package that a module imports when it is loaded, not those inside functions."""
    found: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_no_module_imports_itself_in_a_circle():
    def name(path: Path) -> str:
        parts = path.relative_to(ROOT).with_suffix("").parts
        return ".".join((PACKAGE, *(p for p in parts if p != "__init__")))

    # A package's face names its own modules, which may name the package: only modules make circles.
    paths = {name(p): p for p in ROOT.rglob("*.py") if p.name != "__init__.py"}
    below = {module: modules_imported(path) & set(paths) for module, path in paths.items()}
    while free := [m for m, needs in below.items() if not needs & set(below)]:
        for module in free:
            del below[module]
    assert not below, f"in circles: {sorted(below)}"


def test_trap_37_options_reach_the_catalogue_through_one_door():
    """Handed on one by one in a second place, some would be forgotten there."""
    callers = {
        path.relative_to(ROOT) for path in ROOT.rglob("*.py") if "build_catalog_model(" in path.read_text()
    }
    assert callers == {Path("sky/catalog_model.py"), Path("imaging/obs_context.py")}


def test_help_and_completion_wait_for_no_numerical_library():
    """They would take seconds to load, at every press of the tab key."""
    heavy = {"numba", "numpy", "scipy", "astropy", "matplotlib", "casacore", "ducc0", "radler"}
    script = f"import sys, dsa110_contimg.cli.main; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
