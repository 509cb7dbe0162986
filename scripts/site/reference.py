"""Hook of MkDocs: the pages of the reference that are made from the code, anew with every build.

Commands come from the command line itself, options from the classes that read them, errors from their tree,
the summary from its schema: nothing of it is written twice.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from dsa110_contimg import config, errors
from dsa110_contimg.calibration import caltables
from dsa110_contimg.cli import app
from dsa110_contimg.cli.options import FLAGS
from dsa110_contimg.pipeline import naming as pipeline_naming
from dsa110_contimg.report.words import PRODUCTS
from dsa110_contimg.selfcal.antenna_report import antenna_report
from dsa110_contimg.selfcal.naming import PICTURE, REPORT
from dsa110_contimg.selfcal.source_report import source_report
from dsa110_contimg.selfcal.summary_schema import STATUSES, summary_schema
from dsa110_contimg.settings import PREFIX, Settings, bounds

#: Option classes in the order of the page, each with the options that it adds to those it stands on.
CLASSES: tuple[type[Settings], ...] = (
    config.CleanConfig,
    config.SeedConfig,
    config.BackendConfig,
    config.ImagingConfig,
    config.SelfCalConfig,
    config.PipelineConfig,
    config.ComparisonConfig,
    config.StudyConfig,
    config.SimulationConfig,
)
#: Of these a command takes all options, or none: the largest first.
WHOLE = (
    config.PipelineConfig,
    config.SelfCalConfig,
    config.ImagingConfig,
    config.ComparisonConfig,
    config.StudyConfig,
    config.SimulationConfig,
)
#: Exit status by what it means, beside those of the errors.
EXITS = {0: "finished", 130: "interrupted (Ctrl-C); the same command again finishes the work"}
EXITS |= {143: "ended by SIGTERM; the same command again finishes the work"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the schema as a file."""
    schema = json.dumps(summary_schema(), indent=2) + "\n"
    pages = {
        "commands.md": commands_page(),
        "options.md": options_page(),
        "errors.md": errors_page(),
        "products.md": products_page(),
        "summary.md": summary_page(),
        "gain-tables.md": gain_tables_page(),
        "selfcal_summary.schema.json": schema,
    }
    for name, content in pages.items():
        files.append(File.generated(config, f"reference/{name}", content=content))
    return files


def cell(text: object) -> str:
    """Text of a cell of a table: one line, no bars."""
    return " ".join(str(text).split()).replace("|", "\\|")


def rows(head: str, *lines: tuple[object, ...]) -> str:
    """Table with a head, its columns separated by bars."""
    names = [name.strip() for name in head.split("|")]
    table = [names, ["---"] * len(names), *([cell(value) for value in line] for line in lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in table) + "\n"


def flag_of(name: str, info: Any) -> str:
    """Flag of an option, as :func:`~dsa110_contimg.cli.options.settings_flags` makes it."""
    flag = FLAGS.get(name, "--" + name.replace("_", "-"))
    if info.annotation is bool and "/" not in flag:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    return " ".join(f"`{word}`" for word in flag.split("/"))


def allowed(cls: type[Settings], name: str) -> str:
    """Say what an option takes: words, a range, or its type."""
    kinds = [cls.model_fields[name].annotation]
    if get_origin(kinds[0]) not in (None, Literal):
        kinds = [kind for kind in get_args(kinds[0]) if kind is not type(None)]
    words = []
    for kind in kinds:
        if get_origin(kind) is Literal:
            words.append(", ".join(f"`{word}`" for word in get_args(kind)))
        else:
            named = {
                "bool": "yes or no",
                "str": "text",
                "Path": "path",
                "int": "whole number",
                "float": "number",
            }
            words.append(named[kind.__name__])
    return "; ".join(filter(None, [" or ".join(words), bounds(cls, name)]))


def own_fields(cls: type[Settings]) -> list[str]:
    """Options that a class adds to those that it stands on."""
    return [name for name in cls.model_fields if name in cls.__annotations__]


def anchor(cls: type[Settings]) -> str:
    """Where the options of a class stand on their page."""
    return cls.__name__.lower()


def options_page() -> str:
    """All options with flag, variable, key, range and default."""
    text = [
        "# Options\n",
        "Each option is a flag, an environment variable and a key of the TOML file that `--config` names. "
        "The flag wins over the variable, the variable over the file, the file over the default. In Python "
        "it is a field of the class. `contimg config show` prints the values in force and where each comes "
        "from, `contimg config template` a file of all to begin with.\n",
    ]
    for cls in CLASSES:
        above = [base for base in cls.__mro__[1:] if base in CLASSES]
        text.append(f"## {cls.__name__} {{ #{anchor(cls)} }}\n")
        text.append((inspect.getdoc(cls) or "") + "\n")
        if above:
            links = ", ".join(f"[{base.__name__}](#{anchor(base)})" for base in above)
            text.append(f"It has the options of {links} as well.\n")
        lines = []
        for name in own_fields(cls):
            info = cls.model_fields[name]
            default = "" if info.default is None else f"`{info.default}`"
            names = (f"`{name}`", flag_of(name, info), f"`{PREFIX}{name.upper()}`")
            lines.append(("<br>".join(names), allowed(cls, name), default, info.description))
        text.append(rows("key, flag, variable | takes | default | meaning", *lines))
    return "\n".join(text)


def commands() -> Iterator[tuple[str, Any]]:
    """Each command with its words, in the order of the help."""

    def walk(command: Any, words: str) -> Iterator[tuple[str, Any]]:
        for name, below in command.commands.items():
            if hasattr(below, "commands"):
                yield from walk(below, f"{words} {name}")
            else:
                yield f"{words} {name}", below

    return walk(typer.main.get_command(app), "contimg")


def commands_page() -> str:
    """All commands with their arguments and options."""
    text = [
        "# Commands\n",
        "Results go to stdout, progress and logs to stderr; `--json` prints one JSON object on stdout "
        "and nothing else. `contimg -v COMMAND` logs what the engines say, `contimg --version` prints the "
        "version. What an exit status means: [exit codes and errors](errors.md).\n",
    ]
    for words, command in commands():
        taken = {p.name: p for p in command.params}
        whole = []
        for cls in WHOLE:
            if set(cls.model_fields) <= set(taken):
                whole.append(cls)
                taken = {name: p for name, p in taken.items() if name not in cls.model_fields}
        arguments = [p for p in taken.values() if p.param_type_name == "argument"]
        options = [p for p in taken.values() if p.param_type_name == "option"]
        shown = " ".join(usage(p) for p in arguments)
        text.append(f"## {words}\n")
        text.append(f"```text\n{words}{' ' + shown if shown else ''} [options]\n```\n")
        text.append((command.help or "") + "\n")
        lines: list[tuple[object, ...]] = [(f"`{usage(p)}`", "", p.help or "") for p in arguments]
        for p in options:
            flags = " ".join(f"`{flag}`" for flag in (*p.opts, *p.secondary_opts))
            lines.append((flags, default_of(p), p.help or ""))
        if lines:
            text.append(rows("argument or option | default | meaning", *lines))
        if whole:
            links = " and ".join(f"[{cls.__name__}](options.md#{anchor(cls)})" for cls in whole)
            text.append(f"Takes all options of {links}.\n")
    return "\n".join(text)


def usage(argument: Any) -> str:
    """How an argument is written."""
    name = argument.metavar or argument.name.upper()
    if argument.nargs == -1 and not name.endswith("..."):
        name += "..."
    return name if argument.required else f"[{name}]"


def default_of(option: Any) -> str:
    """Default of an option; empty where there is none."""
    if option.required:
        return "required"
    if isinstance(option.show_default, str):
        return f"`{option.show_default}`"
    return "" if option.default in (None, False, (), []) else f"`{option.default}`"


def errors_page() -> str:
    """Exit codes and the tree of errors."""
    codes: dict[int, str] = {
        errors.InputError.exit_code: "bad input or usage",
        errors.EngineError.exit_code: "an engine failed",
        errors.NotImprovedError.exit_code: "not improved under `--require-improvement`",
    }
    text = [
        "# Exit codes and errors\n",
        "Every failure prints one line on stderr: what is wrong, where, and what to do.\n",
        rows("exit status | means", *sorted({**EXITS, **codes}.items())),
        "With `CONTIMG_DEBUG=1` an internal error shows where it happened.\n",
        "## Error classes { #classes }\n",
        "In Python every failure that is foreseen is a `dsa110_contimg.errors.ContimgError`; `what`, `where` "
        "and `remedy` are its parts.\n",
    ]
    lines = []

    def walk(cls: type[errors.ContimgError], above: str) -> None:
        meaning = (inspect.getdoc(cls) or "").splitlines()[0]
        lines.append((f"`{cls.__name__}`", above, cls.exit_code, meaning))
        for below in cls.__subclasses__():
            if below.__module__ == errors.__name__:
                walk(below, f"`{cls.__name__}`")

    walk(errors.ContimgError, "")
    return "\n".join([*text, rows("class | is a | exit status | means", *lines)])


def columns_in(function: Any) -> str:
    """Return what the docstring of a report's maker says of its columns."""
    doc = inspect.getdoc(function) or ""
    return doc.partition("astropy.table.Table\n")[2].replace("``", "`").strip()


def products_page() -> str:
    """Files of a self-calibration and of the pipeline."""
    files = {**PRODUCTS, REPORT: "the whole run on one page"}
    files[PICTURE] = "images before and after, sky minus catalogue, and gains in one picture"
    files["selfcal_N_p.gcal, selfcal_N_ap.gcal"] = (
        "gain tables of phases, and of amplitudes and phases, to be applied in the order of N after the "
        "initial ones ([layout](gain-tables.md))"
    )
    naming = pipeline_naming
    pipeline = {
        naming.IMAGE: "the published image",
        f"{naming.ARMS[0]}/, {naming.ARMS[1]}/": "products of each self-calibration, as above",
        naming.RECORD: "what came of it: verdict, figures, versions, options, initial tables",
        naming.JOB: "the work in hand",
        naming.FAILURE: "how the last run failed, where it did",
        naming.LOG: "what the workers said, one JSON object a line",
    }
    return "\n".join(
        [
            "# Products\n",
            "Each file is written beside its final name, synced and renamed: it is whole or not there.\n",
            "## Of contimg selfcal { #selfcal }\n",
            rows("file | holds", *((f"`{name}`", meaning) for name, meaning in files.items())),
            "What the summary says key by key: [summary](summary.md).\n",
            "### sources.ecsv\n",
            columns_in(source_report) + "\n",
            "### antennas.ecsv\n",
            columns_in(antenna_report) + "\n",
            "## Of the pipeline, in OUTDIR/NAME { #pipeline }\n",
            rows("file | holds", *((f"`{name}`", meaning) for name, meaning in pipeline.items())),
            f"`OUTDIR/{naming.STATE}` is the state of all runs, unless `state_file` names another place.\n",
        ]
    )


def type_of(key: dict[str, Any]) -> str:
    """Type of a key of the schema, with a link to the table of an object."""
    if "anyOf" in key:
        return " or ".join(type_of(one) for one in key["anyOf"])
    if "$ref" in key:
        name = key["$ref"].rpartition("/")[2]
        return f"[object](#{name.lower()})"
    if "enum" in key:
        return ", ".join(f'`"{word}"`' for word in key["enum"])
    if "const" in key:
        return f"`{key['const']}`"
    kind = str(key.get("type", "any"))
    if kind == "array":
        number = f" of {key['minItems']}" if "minItems" in key else " of"
        return f"list{number}: {type_of(key['items'])}"
    if kind == "object" and isinstance(key.get("additionalProperties"), dict):
        return f"object of: {type_of(key['additionalProperties'])}"
    return kind


def summary_page() -> str:
    """Keys of selfcal_summary.json."""
    schema = summary_schema()

    def table(part: dict[str, Any]) -> str:
        needed = part.get("required", [])
        keys = part["properties"].items()
        return rows(
            "key | is | meaning",
            *(
                (f"`{name}`{'' if name in needed else ' (optional)'}", type_of(key), key["description"])
                for name, key in keys
            ),
        )

    text = [
        "# Summary: selfcal_summary.json\n",
        schema["description"].replace("``", "`") + "\n",
        "The form is published as [JSON Schema](selfcal_summary.schema.json); `contimg config schema` prints "
        "the same. `schema_version` is raised when a key changes its meaning or goes.\n",
        table(schema),
        "## Status { #status }\n",
        rows("status | means", *((f"`{name}`", meaning) for name, meaning in STATUSES.items())),
    ]
    for name, part in schema["$defs"].items():
        text += [f"## {name} {{ #{name.lower()} }}\n", part["description"] + "\n", table(part)]
    return "\n".join(text)


def gain_tables_page() -> str:
    """Layout of the gain tables, from what writes them."""
    units = {"TIME": "s, MJD UTC, middle of the interval", "INTERVAL": "s"}
    meanings = {
        "FIELD_ID": "row of FIELD",
        "SPECTRAL_WINDOW_ID": "row of SPECTRAL_WINDOW",
        "ANTENNA1": "the antenna",
        "ANTENNA2": "reference antenna",
        "SCAN_NUMBER": "scan",
        "OBSERVATION_ID": "row of OBSERVATION",
        "CPARAM": "gain; 1 where it is flagged",
        "PARAMERR": "its standard error",
        "FLAG": "true where there is no solution",
        "SNR": "signal to noise",
        "WEIGHT": "inverse square of the error; 0 without one",
    }
    assert set(units) | set(meanings) == set(caltables.SCALARS) | set(caltables.ARRAYS)
    lines = [
        (f"`{name}`", "int32" if isinstance(value, int) else "float64", units.get(name) or meanings[name])
        for name, value in caltables.SCALARS.items()
    ]
    lines += [
        (f"`{name}`", f"{kind}, (nchan, npol) in Python", meanings[name])
        for name, (_, kind) in caltables.ARRAYS.items()
    ]
    return "\n".join(
        [
            "# Gain tables\n",
            f"Tables of CASA's NewCalTable, kinds {', '.join(caltables.KINDS)}. One row per solution "
            "interval, spectral window and antenna, in the order of time. Arrays have one channel, those of "
            "a B Jones table the channels of the data. A gain that several windows share stands under each "
            "of them, so that no map of spectral windows is needed.\n",
            rows("column | type | holds", *lines),
            "Corrected data are $V_{pq} / (g_p g_q^*)$. Subtables: ANTENNA, FIELD, OBSERVATION, "
            "SPECTRAL_WINDOW as in the Measurement Set, HISTORY.\n",
            "Apply them after the initial tables, in the order of `gaintables` in the summary. Programs that "
            "interpolate, CASA's `applycal` among them, may carry gains over flagged solutions: the flags in "
            "the Measurement Set (`--unsolved flag`) protect the data.\n",
        ]
    )
