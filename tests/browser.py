"""Pages in Debian's Chromium: fixtures, and a look for barriers."""

from __future__ import annotations

import pytest

from tests.needs import program, unavailable


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium; nothing is downloaded."""
    chromium = program("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("playwright is not installed (requirements-test.lock)")
        raise
    with sync_playwright() as playwright:
        # As root it has no sandbox; it opens files of these tests alone.
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def show(browser):
    """Open a page at a width and in a colour scheme; what the console and the network say is an error."""
    contexts, said = [], []

    def open_page(folder, width=1280, scheme="light", name="report.html", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else said.append(r.url))
        page.goto((folder / name).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def require_no_grave_barrier(page) -> set[str]:
    """Look with axe-core for what stands in the way of who does not see a page; return the rules met."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        unavailable("axe-playwright-python is not installed (requirements-test.lock)")
        raise
    found = Axe().run(page).response
    met = {rule["id"] for rule in found["passes"]}
    assert "color-contrast" in met
    grave = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    told = [(v["id"], v["help"], [node["html"][:150] for node in v["nodes"][:3]]) for v in grave]
    assert not told, told
    return met
