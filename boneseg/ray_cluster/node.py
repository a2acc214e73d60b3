"""What every process that a given cluster starts for us does first.

Ray calls it as a hook in its workers; a job's own command does so itself.
"""

from __future__ import annotations

import os

from boneseg.ray_cluster.sealed import KEY_VARIABLE, HandedOver, opened
from boneseg.settings.loading import NODE_VARIABLE, work_folder

HOOK = "boneseg.ray_cluster.node.set_up"
CERTIFICATES = "SSL_CERT_FILE"
"""An environment variable, and under which name the text of its file is handed over."""


def set_up() -> None:
    """Take over the caller's environment, and this node's own work folder."""
    os.environ[NODE_VARIABLE] = "1"
    handed = received()
    if handed is None:
        return
    os.environ.update(handed.environment)
    if CERTIFICATES in handed.files:
        os.environ[CERTIFICATES] = _kept(handed.files[CERTIFICATES])


def received() -> HandedOver | None:
    """Return what was handed over to this process, or none.

    Raises:
        SettingsError: it did not arrive.
    """
    key = os.environ.get(KEY_VARIABLE)
    return None if key is None else opened(key)


def _kept(text: str) -> str:
    """Put certificates where they stay for as long as processes of this node live."""
    from boneseg.atomic_write import atomic_write_bytes
    from boneseg.identity import stable_hash
    from boneseg.storage.permissions import make_private

    path = make_private(work_folder() / "certificates") / f"{stable_hash(text)}.pem"
    if not path.exists():
        atomic_write_bytes(path, text.encode(), private=True)
    return str(path)
