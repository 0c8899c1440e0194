"""A run on a Dask cluster: its executor, who may draw, and what can go wrong on the way."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from c2gm.runtime.backends import on_gpu
from c2gm.runtime.dispatch import draw_map, everywhere
from c2gm.runtime.errors import BackendError, Interrupted, first_line
from c2gm.runtime.job import InferOptions
from c2gm.runtime.merge import Merged
from c2gm.runtime.progress import ProgressReport
from c2gm.runtime.shard_worker import forget, look_ahead

if TYPE_CHECKING:
    from distributed import Client

CONNECT_S = 10.0
WORKERS_S = 30.0
"""For so long the scheduler and its first worker are waited for."""

RETRIES = 2
"""Of a shard that failed with an error; one whose worker died is given to another one anyway."""

GPU = "GPU"
"""The resource that a worker offers (`dask worker --resources GPU=1`) and a shard takes."""


def run_on_cluster(
    options: InferOptions, address: str, shards: int | None, progress: ProgressReport
) -> Merged:
    """Draw a map on the workers of the Dask cluster whose scheduler has this address.

    `shards`: how many, default a few for each worker. Raises C2GMError; BackendError where the
    cluster cannot be reached, lacks what the run needs, or is lost.
    """
    options = everywhere(options)
    with _connected(address) as client:
        found = list(client.scheduler_info(n_workers=-1)["workers"].values())
        offering = [worker for worker in found if worker["resources"].get(GPU, 0) >= 1]
        wanted = options.backend != "auto" and on_gpu(options.backend)
        if wanted and not offering:
            raise _no_gpu(address, options.backend)
        try:  # `auto` is what it is where a GPU is offered, if one is
            ahead = _executor(client, wanted or (options.backend == "auto" and bool(offering)))
            outlook = ahead.submit(look_ahead, options).result()
        except KeyboardInterrupt:
            raise Interrupted("stopped before anything was made") from None
        for warning in outlook.warnings:
            progress.note(f"warning: {warning}")
        gpu = on_gpu(outlook.backend)
        if gpu and not offering:
            raise _no_gpu(address, outlook.backend)
        workers = offering if gpu else found
        if not gpu and (wide := max(worker["nthreads"] for worker in workers)) > 1:
            progress.note(
                f"warning: a worker draws up to {wide} shards at a time, and each takes all cores; "
                "start workers with --nthreads 1"
            )
        executor = _executor(client, gpu)
        merged = draw_map(executor, options, outlook, len(workers), shards, progress)
        client.run(forget, outlook.fingerprint, on_error="ignore")
    return merged


def _executor(client: "Client", gpu: bool) -> Executor:
    """Runs tasks on the cluster's workers, one at a time for each GPU that they offer."""
    resources = {GPU: 1} if gpu else None
    executor: Executor = client.get_executor(pure=False, retries=RETRIES, resources=resources)
    return executor


def _no_gpu(address: str, backend: str) -> BackendError:
    return BackendError(
        f"no worker of {address} offers a GPU, which {backend} needs; start workers with "
        "--resources GPU=1, or give --backend onnxruntime"
    )


@contextmanager
def _connected(address: str) -> Iterator["Client"]:
    """A client whose cluster has a worker. Raises BackendError; see `run_on_cluster`."""
    try:
        from distributed import Client, KilledWorker
        from distributed.comm.addressing import get_address_host
    except ModuleNotFoundError as error:
        raise BackendError(
            f"--cluster needs {error.name}, which is not installed; pip install 'c2gm[cluster]'"
        ) from None
    client: Any = None
    try:
        get_address_host(address)  # a client that refuses an address does not end cleanly
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
        client.wait_for_workers(1, timeout=WORKERS_S)
    except (OSError, ValueError, TimeoutError) as error:
        if client is not None:
            client.close()
        what = "has no worker" if client is not None else "cannot be reached"
        raise BackendError(
            f"the cluster {address} {what} ({first_line(error)}); give the address that "
            "`dask scheduler` prints, and start `dask worker` with it"
        ) from None
    try:
        yield client
    except KilledWorker as error:
        raise BackendError(
            f"several workers died of one shard, the last at {error.last_worker.address}; see what "
            "they say (too little memory?); finished shards are kept, the same command goes on"
        ) from None
    except ModuleNotFoundError as error:
        raise BackendError(
            f"a worker lacks {error.name}; install the same c2gm on every worker"
        ) from None
    finally:
        client.close()
