"""Make certificate authorities and servers' certificates for tests."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey


def authority(file: Path) -> tuple[Key, x509.Certificate]:
    """Write a new authority's certificate to a PEM file, and return it with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(f"authority {file.stem}", f"authority {file.stem}", key)
    builder = builder.add_extension(x509.BasicConstraints(True, None), True)
    root = builder.sign(key, hashes.SHA256())
    file.write_bytes(root.public_bytes(Encoding.PEM))
    return key, root


def certificate(
    file: Path, key: Key, root: x509.Certificate, *hosts: str, expired: bool = False
) -> None:
    """Write a server's key and certificate, signed by an authority, to one PEM file."""
    own = ec.generate_private_key(ec.SECP256R1())
    issuer = root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    builder = _builder(hosts[0], str(issuer), own, expired=expired)
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    signed = builder.add_extension(names, False).sign(key, hashes.SHA256())
    private = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + signed.public_bytes(Encoding.PEM))


def _builder(
    subject: str, issuer: str, key: Key, *, expired: bool = False
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=-1 if expired else 2))
    )
