"""Serve a folder to both peers: nginx over HTTP, HTTPS and HTTP/2, and hosts that are slow."""

import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from . import slow_hosts

HOST = "127.0.0.1"
_CONFIGURATION = """
daemon off;
master_process off;  # one process, which stays who we are
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  open_file_cache max=100000 inactive=600s;
  types {{ image/jpeg jpg; text/plain txt; }}
  client_body_temp_path {folder}/temporary;
  proxy_temp_path {folder}/temporary;
  fastcgi_temp_path {folder}/temporary;
  uwsgi_temp_path {folder}/temporary;
  scgi_temp_path {folder}/temporary;
  ssl_certificate {folder}/certificate.pem;
  ssl_certificate_key {folder}/key.pem;
  server {{ listen {host}:{http} backlog=4096; root {root}; }}
  server {{ listen {host}:{https} ssl backlog=4096; root {root}; }}
  server {{ listen {host}:{http2} ssl http2 backlog=4096; root {root}; }}
}}
"""


@dataclass(frozen=True)
class Web:
    """Where the folder is served; ``certificate`` is what a client of the last two must trust."""

    http: str
    https: str  # HTTP/1.1
    http2: str
    late: str  # answers after a while; see slow_hosts
    hanging: str
    dripping: str
    dead: str  # nobody listens
    certificate: Path


@contextmanager
def serve(root: Path, folder: Path) -> Iterator[Web]:
    """Serve ``root`` while the block runs; ``folder`` is for configuration and logs."""
    if shutil.which("nginx") is None:
        raise click.ClickException("this benchmark needs nginx (Debian: apt install nginx)")
    (root / "robots.txt").write_text("User-agent: *\nAllow: /\n")
    http, https, http2, slow, dead = _free_ports(5)
    certificate = _certify(folder)
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            folder=folder, root=root, host=HOST, http=http, https=https, http2=http2
        )
    )
    nginx = ("nginx", "-e", f"{folder}/error.log", "-p", f"{folder}/", "-c", str(configuration))
    others = (sys.executable, "-m", slow_hosts.__name__, str(root), str(slow))
    with _running(nginx, http, folder), _running(others, slow, folder):
        yield Web(
            f"http://{HOST}:{http}",
            f"https://{HOST}:{https}",
            f"https://{HOST}:{http2}",
            f"http://{slow_hosts.LATE}:{slow}",
            f"http://{slow_hosts.HANGING}:{slow}",
            f"http://{slow_hosts.DRIPPING}:{slow}",
            f"http://{HOST}:{dead}",
            certificate,
        )


def _free_ports(count: int) -> list[int]:
    with ExitStack() as opened:
        listeners = [opened.enter_context(closing(socket.socket())) for _ in range(count)]
        for listener in listeners:
            listener.bind((HOST, 0))
        return [int(listener.getsockname()[1]) for listener in listeners]


@contextmanager
def _running(command: Sequence[str], port: int, folder: Path) -> Iterator[None]:
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, start_new_session=True)
    try:
        for _ in range(200):
            with closing(socket.socket()) as client:
                if client.connect_ex((HOST, port)) == 0:
                    break
            if process.poll() is not None:
                raise click.ClickException(f"{command[0]} does not start: {log.read_text()}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def _certify(folder: Path) -> Path:
    """Write a self-signed certificate for our address, as most of the web's: P-256."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Breadth's benchmark")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with os.fdopen(os.open(folder / "key.pem", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file_:
        file_.write(secret)
    return file
