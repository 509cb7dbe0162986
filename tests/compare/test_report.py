"""The report of a comparison as text."""

import json
import re

from dsa110_contimg.compare.report import text_report


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
