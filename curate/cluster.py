"""Worker processes on this machine: a Dask cluster that is cheap to start."""

import datetime
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Any

SHARE, SHARES = "share of a worker", 2
"""A part's fetch ends with its slowest hosts, and the next part's begins meanwhile."""

ENVIRONMENT = {
    # Dask has freed memory given back at once: each picture's buffers would be fetched anew, which
    # costs as much again as their decoding
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(16 * 2**20),
    # Arrow's own allocator keeps what it has freed: 30 MB a worker that the decoder could use.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    # Workers that are killed leave their semaphores to a tracker, which frees them and warns.
    "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""What workers find in their environment where the user has not set it."""

CONFIG = {
    "distributed.worker.multiprocessing-method": "forkserver",
    "distributed.nanny.pre-spawn-environ": ENVIRONMENT,
}
_IMPORTED = ["distributed", f"{__package__}.worker_imports"]


def warm_up() -> None:
    """Start the process that workers are forked from, which imports while the caller goes on.

    A worker then starts in a few milliseconds, also when one has died, and workers share the memory
    of what they import. The process ends with this one, however that ends.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    forkserver.set_forkserver_preload(_IMPORTED)
    with _interrupts_ignored():
        forkserver.ensure_running()


def local_cluster(workers: int) -> Any:
    """Return a cluster that listens on loopback only, with TLS, and shares out the memory."""
    from distributed import LocalCluster, utils

    warm_up()
    utils._forkserver_preload_set = True  # else Dask would import pandas here, for workers to share
    with _interrupts_ignored():
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=SHARES,
            resources={SHARE: SHARES},
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=_memory_per_worker(workers),
            security=_security(),
            silence_logs=50,
            env=dict(os.environ),  # it may have changed since warm_up()
        )
    _open_dashboard_on_demand(cluster.scheduler)
    return cluster


def _open_dashboard_on_demand(scheduler: Any) -> None:
    """Make the dashboard when somebody looks at it: it takes as long as all else, and 50 MB."""
    from tornado.web import Application, RequestHandler

    served = scheduler.http_application

    class Opening(RequestHandler):
        """Answers the first request, which is repeated when the dashboard is there."""

        def get(self) -> None:
            if door in served.applications:
                from distributed.dashboard.scheduler import connect

                served.applications.remove(door)
                connect(served, scheduler.http_server, scheduler)
            self.redirect(self.request.uri or "/")

    door = Application([(".*", Opening)])
    served.add_application(door)


def _security() -> Any:
    """Return credentials for this cluster alone; Dask's own are RSA, at 0.1 s of CPU a key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from distributed.security import Security

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "breadth")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks are set
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("breadth")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM).decode()
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    roles = ("client", "scheduler", "worker")
    keys = {f"tls_{role}_key": secret for role in roles}
    certificates = {f"tls_{role}_cert": public for role in roles}
    return Security(require_encryption=True, tls_ca_file=public, **keys, **certificates)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Start processes that leave Ctrl-C to the driver, which stops them in its own time.

    A terminal sends it to all of them; a new process ignores what its parent ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _memory_per_worker(workers: int) -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(0.8 * total / workers)
