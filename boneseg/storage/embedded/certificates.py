"""Mutual TLS for everything of the embedded server but S3.

Its master, volumes, filer and admin answer anybody who reaches their ports, also with the keys of S3. So every one
of their ports, HTTP and gRPC alike, asks for a certificate of an authority that is made anew at each start and whose
key is never kept: nobody can make a second certificate, none has to be renewed, and a damaged one is gone at the next
start.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from boneseg.atomic_write import atomic_write_bytes
from boneseg.storage.permissions import make_private

_CONFIGURATION, _FOLDER = "security.toml", "tls"
_AUTHORITY, _CERTIFICATE, _KEY = "authority.pem", "store.pem", "store.key"
_YEARS = 10
_GRPC = ("admin", "client", "filer", "master", "mq", "msg_agent", "msg_broker", "s3", "volume", "worker")
_HTTP = ("admin", "filer", "master", "volume")


def make_certificates(home: Path, address: str = "127.0.0.1") -> None:
    """Make a certificate, and the configuration by which a server started in ``home`` asks all its clients for it.

    Args:
        home: of the server.
        address: where it listens.

    Raises:
        OSError: the files cannot be written.
    """
    folder = make_private(home / _FOLDER)
    authority, certificate, key = _signed(address)
    atomic_write_bytes(folder / _AUTHORITY, authority, private=True)
    atomic_write_bytes(folder / _CERTIFICATE, certificate, private=True)
    atomic_write_bytes(folder / _KEY, key, private=True)
    atomic_write_bytes(home / _CONFIGURATION, _configuration(folder).encode(), private=True)


def guarded(home: Path) -> bool:
    """Say whether certificates were made for the server of ``home``."""
    return (home / _CONFIGURATION).exists()


def client_context(home: Path) -> ssl.SSLContext:
    """Return what a client of the server's own ports needs.

    Raises:
        OSError: there are no certificates, or they are damaged (``ssl.SSLError``).
    """
    folder = home / _FOLDER
    context = ssl.create_default_context(cafile=str(folder / _AUTHORITY))
    context.load_cert_chain(folder / _CERTIFICATE, folder / _KEY)
    return context


def _configuration(folder: Path) -> str:
    pair = f"cert = {_quoted(folder / _CERTIFICATE)}\nkey = {_quoted(folder / _KEY)}\n"
    authority = f"ca = {_quoted(folder / _AUTHORITY)}\n"
    sections = [f"[grpc]\n{authority}"]
    sections += [f"[grpc.{component}]\n{pair}" for component in _GRPC]
    sections += [f"[https.{component}]\n{pair}{authority}" for component in _HTTP]
    sections.append(f"[https.client]\nenabled = true\n{pair}{authority}")
    return "\n".join(sections)


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _signed(address: str) -> tuple[bytes, bytes, bytes]:
    """Return an authority, a certificate by it for servers and clients on this machine, and its key, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (subject, "boneseg authority")]
        start = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(key.public_key())
        start = start.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        start = start.not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        return start.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)

    def usage(authority: bool) -> x509.KeyUsage:
        return x509.KeyUsage(not authority, False, False, False, False, authority, False, False, False)

    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = builder("boneseg authority", root).add_extension(x509.BasicConstraints(True, 0), critical=True)
    signed_authority = authority.add_extension(usage(True), critical=True).sign(root, SHA256())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())
    numbers = {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address(address)}
    addresses = [*map(x509.IPAddress, sorted(numbers)), x509.DNSName("localhost")]
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    leaf = builder("boneseg store", key).add_extension(x509.BasicConstraints(False, None), critical=True)
    leaf = leaf.add_extension(usage(False), critical=True).add_extension(issuer, critical=False)
    leaf = leaf.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
    certificate = leaf.add_extension(x509.ExtendedKeyUsage(both), critical=False).sign(root, SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return signed_authority.public_bytes(pem), certificate.public_bytes(pem), private
