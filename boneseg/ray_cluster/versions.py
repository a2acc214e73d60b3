"""Which code runs here and on a cluster: what differs is refused before any work is lost to it."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version

from boneseg.errors import SettingsError
from boneseg.version import code_version


@dataclass(frozen=True)
class Versions:
    """Of boneseg's source, Ray and Python."""

    boneseg: str
    ray: str
    python: str
    """Without the last part: objects cross between Pythons of the same minor version."""


def versions_here() -> Versions:
    """Return the versions that this process runs."""
    return Versions(code_version(), version("ray"), ".".join(platform.python_version_tuple()[:2]))


def require_same(caller: Versions, cluster: Versions) -> None:
    """Refuse a cluster that runs other code.

    Raises:
        SettingsError: names both versions of what differs.
    """
    names = {"boneseg": "boneseg", "ray": "Ray", "python": "Python"}
    ours, theirs = asdict(caller), asdict(cluster)
    different = [name for name in names if ours[name] != theirs[name]]
    if different:
        here = ", ".join(f"{names[name]} {ours[name]}" for name in different)
        there = ", ".join(f"{names[name]} {theirs[name]}" for name in different)
        raise SettingsError(
            f"this machine runs {here}, the Ray cluster {there}: install the same on both, or use an image of the same "
            "version"
        )
