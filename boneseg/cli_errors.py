"""What the command line says when something failed."""

from __future__ import annotations

import errno
import io
import os
import traceback
from types import TracebackType

import click

from boneseg.errors import BonesegError
from boneseg.redaction import redacted


def usage_of(error: click.ClickException) -> str:
    """Return what click itself would show of a wrong command line."""
    shown = io.StringIO()
    error.show(file=shown)
    return shown.getvalue().rstrip()


def print_traceback(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Print a traceback without passwords: libraries put URLs and settings into their messages."""
    click.echo(redacted("".join(traceback.format_exception(kind, error, trace))), err=True, nl=False)


def sentence_of(error: Exception) -> str:
    """Return what a person reads of an error: one sentence with the fix."""
    if isinstance(error, BonesegError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = error.filename or os.environ.get("BONESEG_HOME", ".boneseg")
        return f"the disk is full at {place}; free some space or set BONESEG_HOME to another disk, then start again"
    if isinstance(error, PermissionError):
        return f"{error.filename}: permission denied"
    return f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)"
