r"""Hook of MkDocs: equations as MathML, which browsers draw by themselves.

Pages write TeX between dollar signs, as GitHub shows it too; what the browser gets needs no script and no
network.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

#: What pymdownx.arithmatex leaves of an equation.
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(page_html: str, **_: Any) -> str:
    """Put MathML in the place of every equation of a page."""
    return EQUATION.sub(_as_mathml, page_html)


def _as_mathml(found: re.Match[str]) -> str:
    display = "block" if found[2] == "[" else "inline"
    return convert(html.unescape(found[3]).strip(), display=display)
