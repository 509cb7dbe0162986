"""One page for each run of self-calibration, from the products that lie in its folder.

`products` reads what is there and notes what is not; `pictures` and `figures` turn it into images and plots
(`plots`), `tables` into tables, `words` has the sentences; `page` puts them together and `build` writes
`report.html`. The template, the style sheet and the script lie beside them.
"""

from dsa110_contimg.report.build import try_report, write_report

__all__ = ["try_report", "write_report"]
