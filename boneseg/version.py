"""Which code runs."""

from pathlib import Path

from boneseg import __version__
from boneseg.storage.hashing import combine, sha256_file

DIGITS = 8


def code_version() -> str:
    """Return the version and a hash of this package's source, such as ``0.1.0+3f0d4f61``.

    Steps take it as a parameter, so that a pipeline's cache forgets what other code made.
    """
    folder = Path(__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".html"))
    source = combine(f"{path.relative_to(folder).as_posix()} {sha256_file(path)}" for path in files)
    return f"{__version__}+{source[:DIGITS]}"
