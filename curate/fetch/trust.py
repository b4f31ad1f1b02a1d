"""Find the certificates that servers are checked against; libcurl's wheel brings none."""

import os
import ssl
from functools import cache
from pathlib import Path

from breadth.loaders.errors import Failed

_USUAL = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS
)


def certificates() -> str:
    """Return the PEM file of the trusted roots: SSL_CERT_FILE, else the system's; raises Failed."""
    named = os.environ.get("SSL_CERT_FILE")
    if named:
        if not Path(named).is_file():
            raise Failed(f"SSL_CERT_FILE names {named}, which is no file")
        return named
    return _system()


@cache
def _system() -> str:
    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, paths.openssl_cafile, *_USUAL):
        if path and Path(path).is_file():
            return path
    raise Failed("no trusted certificates here: install ca-certificates, or set SSL_CERT_FILE")
