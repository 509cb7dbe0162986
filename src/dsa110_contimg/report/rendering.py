"""Pages from templates: one style sheet, scripts that the page allows by their hash, nothing loaded."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

from dsa110_contimg import __version__
from dsa110_contimg.report.plots import SHAPES

__all__ = ["render_page", "typeset"]


def render_page(template: str, values: Mapping[str, Any], scripts: Sequence[str] = ("report.js",)) -> str:
    """Render a page that is complete in itself.

    Parameters
    ----------
    template : str
        Its template in ``report/template/``.
    values : mapping
        What the template shows; all of it is escaped.
    scripts : sequence of str
        Scripts of the page, in their order, beside the template.

    Returns
    -------
    str
        HTML.
    """
    script = "".join(_asset(name) for name in scripts)
    return (
        _environment()
        .get_template(template)
        .render(
            {
                **values,
                "style": _asset("report.css"),
                "script": script,
                "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            }
        )
    )


def _asset(name: str) -> str:
    return (files("dsa110_contimg.report") / "template" / name).read_text(encoding="utf-8")


def typeset(text: str) -> str:
    """Write signs of log lines, which are plain ASCII, as they are printed."""
    return text.replace(" +- ", " \u00b1 ").replace(" -> ", " \u2192 ")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = typeset
    environment.globals |= {"shapes": SHAPES, "version": __version__}
    return environment
