"""A strict look at a page: every element closed in order, every reference inside, nothing loaded."""

from __future__ import annotations

from html.parser import HTMLParser
from itertools import pairwise

VOID = {"meta", "link", "img", "input", "br"}
#: SVG's own elements may close themselves.
CLOSES_ITSELF = {"path", "rect", "ellipse", "circle", "image"}
LOADS = ("src", "href", "srcset", "data", "poster", "action")


class Page(HTMLParser):
    """What stands on a page; the parsing itself fails on what is not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in CLOSES_ITSELF, f"<{tag}/>"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> in {self.open}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def checked(text: str) -> Page:
    """Parse a page and check what holds for every report."""
    page = Page(text)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(set(ids)) == len(ids), f"identifiers twice: {ids}"
    for tag, attrs in page.elements:
        for name in LOADS:
            value = attrs.get(name) or ""
            is_up = value.startswith("../") and value.endswith("/index.html")
            inside = not value or is_up or value.startswith(("#", "./", "data:"))
            assert inside, f"<{tag} {name}={value[:80]!r}>"
            if value.startswith("#"):
                assert value[1:] in ids, f"{value} leads nowhere"
        assert not any(name.startswith("on") for name in attrs), f"a handler on <{tag}>"
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert not attrs.get(name) or attrs[name] in ids, f"{name}={attrs[name]}"
    levels = [int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels)), f"headings: {levels}"
    assert all(attrs.get("alt") for attrs in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert len([attrs for attrs in page.all("script") if attrs.get("type") != "application/json"]) == 1
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert "url(" not in text
    return page
