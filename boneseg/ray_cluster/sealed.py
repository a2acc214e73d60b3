"""What is handed to the nodes, sealed: Ray writes a job's environment to its logs and shows it to who lists jobs.

The sealed file travels as a package of the job, the key in its environment. Neither alone tells anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from boneseg.errors import SettingsError
from boneseg.ray_cluster.versions import Versions

FOLDER, FILE = "boneseg_handed_over", "sealed"
KEY_VARIABLE = "BONESEG_HANDED_OVER_KEY"


@dataclass(frozen=True)
class HandedOver:
    """What the processes on a cluster need of the caller's surroundings; secrets stay out of every repr."""

    versions: Versions
    """Of the caller."""
    environment: dict[str, str] = field(repr=False)
    files: dict[str, str] = field(default_factory=dict, repr=False)
    """Text of files, by what they are for."""
    loopback: str = ""
    """See ``connect.loopback_name``: where 127.0.0.1 is the caller's."""
    command: tuple[str, ...] = ()
    """Of a job: what to run, without the settings."""


def seal(handed: HandedOver) -> tuple[str, bytes]:
    """Return a new key, and the sealed text that only it opens."""
    from cryptography.fernet import Fernet

    key = Fernet.generate_key()
    return key.decode(), Fernet(key).encrypt(json.dumps(asdict(handed)).encode())


def put_sealed(folder: Path, sealed: bytes) -> Path:
    """Write the sealed text below a folder, as the package that Ray carries to the nodes."""
    package = folder / FOLDER
    package.mkdir()
    (package / FILE).write_bytes(sealed)
    return package


def opened(key: str, places: Sequence[str] | None = None) -> HandedOver:
    """Open what was handed over to this process.

    Args:
        key: from the job's environment.
        places: where Ray may have put the package; none = where Python looks for modules.

    Raises:
        SettingsError: it is not there, or damaged.
    """
    from cryptography.fernet import Fernet, InvalidToken

    for place in sys.path if places is None else places:
        try:
            values = json.loads(Fernet(key).decrypt((Path(place) / FOLDER / FILE).read_bytes()))
        except (OSError, InvalidToken, ValueError):
            continue  # nothing, or another job's
        versions = Versions(**values.pop("versions"))
        return HandedOver(versions, **{**values, "command": tuple(values["command"])})
    raise SettingsError("what the caller hands over did not reach this node: look into the cluster's logs of packages")
