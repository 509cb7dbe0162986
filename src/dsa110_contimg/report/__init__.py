"""One page for each run of self-calibration, from the products that lie in its folder.

`products` reads what is there and notes what is not; `pictures` and `figures` turn it into images and plots
(`plots`), `tables` into tables, `words` has the sentences; `page` puts them together and `build` writes
`report.html`. `index` writes the page of all observations, `trends` has what changes on it from day to day,
`varying` its light curves; `cutouts` shows the new sources of a run.
`rendering` makes pages complete in themselves; templates, style sheet and scripts lie in `template/`.
"""

from dsa110_contimg.report.build import try_report, write_report
from dsa110_contimg.report.index import INDEX, IndexRow, write_index
from dsa110_contimg.report.trends import Limits
from dsa110_contimg.report.varying import Varying

__all__ = ["INDEX", "IndexRow", "Limits", "Varying", "try_report", "write_index", "write_report"]
