"""The reports of a comparison, as text and as a page."""

import json
import re
from html.parser import HTMLParser

from dsa110_contimg.compare.report import html_section, text_report


def test_report_says_what_the_results_hold(compared):
    out, results, *_ = compared
    assert results == json.loads((out / "comparison_results.json").read_text())
    text = (out / "comparison_report.txt").read_text()
    assert text == text_report(results)
    for arm in results["arms"]:
        rows = [line for line in text.splitlines() if re.match(rf"{re.escape(arm['name'])}\s", line)]
        f = arm["figures"]
        expected = [
            [str(arm["n_seeds"]), f"{arm['seed_flux_jy']:.3f}"],
            [f"{f['shallow']['snr']:.1f}", f"{1e3 * f['shallow']['rms_jy']:.4g}"],
            [f"{f['deep']['snr']:.1f}", f"{f['delivered']['thermal_ratio']:.2f}"],
            [f"{arm['seconds']['total']:.1f}", f"{arm['seconds']['image']:.1f}"],
        ]
        assert len(rows) >= len(expected)
        for row, words in zip(rows, expected, strict=False):
            assert all(word in row.split() for word in words), (row, words)
    for criterion in results["verdict"]["criteria"]:
        assert f"{criterion['name']}: {criterion['verdict'].upper()}" in text
    assert len(results["verdict"]["criteria"]) == 6
    assert (out / "comparison.png").stat().st_size > 10_000


class Tags(HTMLParser):
    """Checks that elements are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.cells = [], 0

    def handle_starttag(self, tag, attrs):
        if tag not in ("img", "meta"):
            self.open.append(tag)
        self.cells += tag == "td"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_well_formed_and_escaped(compared):
    out, results, *_ = compared
    page = (out / "comparison_report.html").read_text()
    parser = Tags()
    parser.feed(page)
    assert parser.open == []
    assert parser.cells > 4 * 20
    hostile = json.loads(json.dumps(results))
    hostile["arms"][0]["message"] = "<script>alert(1)</script>"
    assert "<script>" not in html_section(hostile)
