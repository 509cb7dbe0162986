"""Where the work is done: workers on this machine, of a running scheduler, or as Slurm jobs."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.config
import psutil
from distributed import Client, LocalCluster
from distributed.security import Security

from dsa110_contimg.config import PipelineConfig
from dsa110_contimg.errors import ConfigError, EngineError, ResourceError

__all__ = ["end_stale_clusters", "local_threads", "open_cluster", "slurm_cluster"]

logger = logging.getLogger(__name__)

#: One worker death fails the task at once: the driver keeps the count of attempts, for each observation.
DASK_OPTIONS = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.daemon": True,
    # A machine that is busy with the work itself answers late.
    "distributed.comm.timeouts.connect": "60s",
}
CONNECT_S = 30
#: Begin of the names of folders with a run's certificates.
CLUSTER_FOLDER = ".cluster-"
NO_HTTP = "dsa110_contimg.pipeline.no_http"
#: A folder for the scratch files of a Slurm job that no other account of its node has made.
PROLOGUE = [
    "DASK_TEMPORARY_DIRECTORY=$(mktemp -d) || exit",
    "export DASK_TEMPORARY_DIRECTORY",
    "trap 'rm -rf \"$DASK_TEMPORARY_DIRECTORY\"' EXIT",
]


@contextlib.contextmanager
def open_cluster(config: PipelineConfig, shared: Path) -> Iterator[Client]:
    """Start or join workers, one Measurement Set at a time on each.

    Parameters
    ----------
    config : PipelineConfig
        ``scheduler`` joins one that runs; ``slurm`` starts jobs; else ``workers``
        processes are started here, each with a budget of memory.
    shared : Path
        Folder that Slurm's nodes see: the certificates of this run lie in it, for its owner alone.

    Yields
    ------
    Client

    Raises
    ------
    ConfigError, ResourceError
        If the options contradict one another or this machine.
    EngineError
        If no scheduler answers.
    """
    security = _security(config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(DASK_OPTIONS | {"temporary-directory": _scratch_folder()}))
        # What matters of its many words the driver says itself.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        address: Any = config.scheduler
        where = address or "this machine"
        try:
            if config.slurm:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=CLUSTER_FOLDER, dir=shared))
                address = stack.enter_context(_closing(slurm_cluster(config, Path(folder))))
                address.scale(jobs=config.workers)
            elif not address:
                require_machine(config)
                address = stack.enter_context(_closing(_local_cluster(config)))
            # An earlier client that failed is closed when it is collected: in the middle of the start of this
            # one, whose lock it waits for, that would never end.
            gc.collect()
            client = Client(address, timeout=CONNECT_S, set_as_default=False, security=security)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise EngineError(f"no Dask scheduler answers ({reason})", where, "start it") from None
        yield stack.enter_context(_closing(client))


def _scratch_folder() -> str:
    """Make a folder for Dask's scratch files that is of this user alone.

    Dask puts it first into sys.path. By default it is dask-scratch-space in the common temporary folder,
    whoever has made that: a module that another account lays there would be imported.
    """
    folder = Path(tempfile.gettempdir()) / f"contimg-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return str(folder)
    return tempfile.mkdtemp(prefix=f"{folder.name}-")


def _security(config: PipelineConfig) -> Security | None:
    """Return the certificates for a scheduler that runs; None where there is none of others.

    Raises
    ------
    ConfigError
        If the options contradict one another, or the scheduler takes work from anybody.
    """
    if not config.scheduler:
        return None
    if config.slurm:
        raise ConfigError("both scheduler and slurm are given", "scheduler", "give one")
    files = {name: getattr(config, name) for name in ("tls_ca", "tls_cert", "tls_key")}
    if not config.scheduler.startswith("tls://"):
        if config.unprotected_scheduler:
            return None
        raise ConfigError(
            f"{config.scheduler} is not protected: whoever reaches its port can run programs as its user",
            "scheduler",
            "give tls://... with --tls-ca, --tls-cert and --tls-key, or --unprotected-scheduler",
        )
    for name, file in files.items():
        if file is None or not file.is_file():
            raise ConfigError("is needed for a tls:// scheduler and not there", name, "give the PEM file")
    ca, cert, key = map(str, files.values())
    return Security(tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, require_encryption=True)


def _local_cluster(config: PipelineConfig) -> LocalCluster:
    return LocalCluster(
        n_workers=config.workers,
        threads_per_worker=1,
        memory_limit=int(config.worker_memory_gb * 1e9),
        # Nobody else on this machine may hand work to the workers.
        security=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False, "preload": [NO_HTTP]},
        preload=[NO_HTTP],
        silence_logs=logging.CRITICAL,
    )


@contextlib.contextmanager
def _closing(resource: Any) -> Iterator[Any]:
    """Close a cluster or client at the end; that this fails must not fail the work that was done."""
    try:
        yield resource
    finally:
        try:
            resource.close()
        except (OSError, RuntimeError) as error:
            logger.warning("Dask did not end cleanly: %s", error or type(error).__name__)


def local_threads(config: PipelineConfig) -> int:
    """Return the threads that a worker may use: all cores shared out, unless something else is asked for."""
    if config.threads or config.scheduler or config.slurm:
        return config.threads
    return max(1, len(os.sched_getaffinity(0)) // config.workers)


def require_machine(config: PipelineConfig) -> None:
    """Raise ResourceError if the workers' memory is more than this machine has."""
    wanted, there = config.workers * config.worker_memory_gb, psutil.virtual_memory().total / 1e9
    if wanted > there:
        raise ResourceError(
            f"{config.workers} workers of {config.worker_memory_gb:g} GB need {wanted:.0f} GB, "
            f"this machine has {there:.0f} GB",
            "worker_memory_gb",
            "lower --workers or --worker-memory-gb",
        )


def end_stale_clusters(shared: Path) -> None:
    """Remove the certificates of drivers that were killed; none of them may be running."""
    for folder in shared.glob(f"{CLUSTER_FOLDER}*"):
        if folder.is_dir() and not folder.is_symlink():
            try:
                shutil.rmtree(folder)
            except OSError as error:
                logger.warning("certificates of a run that was killed stay: %s", error)


def _certificates(folder: Path) -> Security:
    """Make a certificate that scheduler, workers and driver of a run share, readable for their user alone."""
    made = Security.temporary()
    texts = {"ca": made.tls_ca_file, "cert": made.tls_client_cert, "key": made.tls_client_key}
    files = {kind: str(folder / f"{kind}.pem") for kind in texts}
    for kind, text in texts.items():
        with os.fdopen(os.open(files[kind], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    roles = ("client", "scheduler", "worker")
    pairs = {f"tls_{role}_{kind}": files[kind] for role in roles for kind in ("cert", "key")}
    return Security(tls_ca_file=files["ca"], require_encryption=True, **pairs)


def slurm_cluster(config: PipelineConfig, shared: Path) -> Any:
    """Return a cluster of Slurm jobs, none of them started.

    Scheduler and workers know one another by certificates of this run, which lie in a folder of their own
    that the nodes see: nobody else's work is taken.

    A lost job's work is done by another one; jobs are not restarted where the
    queue has ended them, ``workers`` is how many are kept.
    """
    from dask_jobqueue import SLURMCluster

    return SLURMCluster(
        queue=config.slurm_queue,
        account=config.slurm_account,
        walltime=config.slurm_walltime,
        cores=1,
        processes=1,
        job_cpu=max(1, config.threads),
        memory=f"{config.worker_memory_gb:g}GB",
        worker_extra_args=["--nthreads", "1", "--preload", NO_HTTP],
        job_script_prologue=PROLOGUE,
        scheduler_options={"dashboard": False, "dashboard_address": "127.0.0.1:0", "preload": [NO_HTTP]},
        security=_certificates(shared),
    )
