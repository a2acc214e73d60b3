"""Whose certificates to believe."""

from __future__ import annotations

import os
import ssl

import certifi

from boneseg.errors import StoreError


def trusted() -> ssl.SSLContext:
    """Return whom to trust: this machine's authorities, the usual ones, and those of ``SSL_CERT_FILE``.

    Raises:
        StoreError: the file that ``SSL_CERT_FILE`` names holds no certificates.
    """
    context = ssl.create_default_context()
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)  # certificates that people make themselves
    context.load_verify_locations(certifi.where())
    own = os.environ.get("SSL_CERT_FILE")
    if own:
        try:
            context.load_verify_locations(own)
        except OSError as error:  # ssl.SSLError included
            raise StoreError(f"SSL_CERT_FILE={own} is no readable file with certificates (PEM)") from error
    return context
