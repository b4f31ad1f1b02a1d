"""Certificates for the hostile server: one sound, the others each wrong in one way."""

import atexit
import datetime
import ipaddress
import ssl
import tempfile
import warnings
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


def _name(words: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, words)])


@cache
def authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return the key and the certificate of the authority that the client trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key, _signed(key, "hostile authority", key, None, ca=True)


def _signed(
    key: ec.EllipticCurvePrivateKey,
    words: str,
    by: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    *,
    ca: bool = False,
    until: datetime.timedelta = DAY,
    names: list[x509.GeneralName] | None = None,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    building = (
        x509.CertificateBuilder()
        .subject_name(_name(words))
        .issuer_name(issuer.subject if issuer else _name(words))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 9 * DAY)
        .not_valid_after(now + until)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        building = building.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return building.sign(by, hashes.SHA256())


@cache
def folder() -> Path:
    """Return a folder that is gone when the program ends."""
    made = tempfile.TemporaryDirectory(prefix="hostile-")
    atexit.register(made.cleanup)
    return Path(made.name)


@cache
def trusted() -> Path:
    """Return a file with the authority's certificate, for SSL_CERT_FILE."""
    file = folder() / "authority.pem"
    file.write_bytes(authority()[1].public_bytes(serialization.Encoding.PEM))
    return file


@cache
def context(kind: str, host: str) -> ssl.SSLContext:
    """Return a host's TLS: sound, self_signed, expired, other_host, old (1.0) or h2."""
    key = ec.generate_private_key(ec.SECP256R1())
    by, issuer = authority()
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(host))]
    if kind == "other_host":
        names = [x509.DNSName("elsewhere.example")]
    if kind == "self_signed":
        certificate = _signed(key, "myself", key, None, names=names)
    else:
        until = -DAY if kind == "expired" else DAY
        certificate = _signed(key, "a host", by, issuer, names=names, until=until)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if kind == "h2":
        served.set_alpn_protocols(["h2"])
    if kind == "old":
        served.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore"):
            served.minimum_version = served.maximum_version = ssl.TLSVersion.TLSv1
    file = folder() / f"{kind}-{host}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    served.load_cert_chain(file)
    return served
