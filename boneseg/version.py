"""Which code runs."""

import os

from boneseg import __version__


def code_version() -> str:
    """Return the version, followed by the commit where the image knows it, such as ``0.1.0+3f0d4f6``.

    Steps take it as a parameter, so that a pipeline's cache forgets what other code made.
    """
    commit = os.environ.get("BONESEG_COMMIT", "")
    return f"{__version__}+{commit}" if commit else __version__
