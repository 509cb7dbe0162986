"""Many observations, unattended: batches, a watched folder, workers, state, rollout, monitoring.

``contimg run`` and ``contimg watch`` are one loop (`driver`) that hands Measurement
Sets, oldest first, to Dask workers (`cluster`), each of which takes one through
self-calibration, verdict and publication (`job`). Only the driver writes the run
state (`state`, SQLite); a worker leaves records in the observation's folder, by
which a repeated job goes on where it stopped.

Nothing is imported here: the process that only looks at a table (`probe`) starts quickly.
"""
