"""The one family of errors that a user is meant to read."""

import re

QUOTED = re.compile("«([^»]*)»")
"""Words in a message that come out of a file; see ``quoted``."""


def quoted(text: str) -> str:
    """Return words out of a file, such as a segment's name, as messages show them.

    They may name a person: whoever logs or stores the message puts a stand-in in their place.
    """
    return f"«{text.replace('»', '>').replace('«', '<')}»"


class BonesegError(Exception):
    """A fault that the user can mend: one sentence that names the thing and the fix.

    The command line prints the sentence and exits with 1; any other exception is a bug of ours.
    """

    transient = False
    """Whether the same again may end well, because something around the work failed and not the work."""


class SettingsError(BonesegError):
    """A setting is unknown, out of range or contradicts another."""


class StoreError(BonesegError):
    """The object store cannot be reached, refuses the credentials or lost an object."""


class SeriesError(BonesegError):
    """A CT series cannot be read or used; the rest of the data goes on without it."""


class LabelError(BonesegError):
    """A label cannot be read or does not fit its series."""


class DataError(BonesegError):
    """The data as a whole cannot be used: empty, leaking between splits, nothing labelled."""


class OneSeriesError(DataError):
    """There is one usable series, which cannot be both trained and tested on."""


class ModelError(BonesegError):
    """A network cannot be built or a checkpoint cannot be loaded."""


class RecordError(BonesegError):
    """A record that an earlier step wrote is cut short, was changed by hand, or comes from a later version."""
