"""Many observations, unattended: batches, a watched folder, workers, state, rollout, monitoring.

``contimg run`` and ``contimg watch`` are one loop (`driver`) that hands Measurement
Sets, oldest first, to Dask workers (`cluster`), each of which takes one through
self-calibration, verdict and publication (`job`). Only the driver writes the run
state (`state`, SQLite); a worker leaves records in the observation's folder, by
which a repeated job goes on where it stopped.
"""

from dsa110_contimg.pipeline.driver import Driver
from dsa110_contimg.pipeline.job import Job, process, revert
from dsa110_contimg.pipeline.rollout import Mode, choose_mode, in_rollout
from dsa110_contimg.pipeline.state import Observation, State

__all__ = ["Driver", "Job", "Mode", "Observation", "State", "choose_mode", "in_rollout", "process", "revert"]
