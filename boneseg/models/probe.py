"""Whether a pair of architecture and encoder works, found out on torch's meta device, where nothing is computed.

``python -m boneseg.models.probe`` reads pairs as a JSON list of lists and prints a list of what is wrong with each. As
a process of its own it keeps torch out of whoever only wants to know.
"""

from __future__ import annotations

import json
import sys

import torch

from boneseg.encoder_compatibility import PAPER_ENCODERS
from boneseg.errors import SettingsError
from boneseg.models.build import BUILDERS, build_any_size
from boneseg.models.smp import check_encoder, hollow

SIDES = ((72, 64), (200, 136))
"""Rows and columns of the images: small and odd, and of another shape, for encoders that take pictures of one size."""
CLASSES = 3


def fault_of(architecture: str, encoder: str) -> str:
    """Return why a pair does not work, empty where it does.

    Raises:
        SettingsError: one of the two is unknown.
    """
    if architecture not in BUILDERS:
        raise SettingsError(f"architecture {architecture!r} is unknown")
    if encoder not in PAPER_ENCODERS.get(architecture, ()):
        check_encoder(encoder)
    try:
        network = hollow(lambda: build_any_size(architecture, encoder, (1, CLASSES))).eval()
        with torch.no_grad():
            for rows, columns in SIDES:
                shape = tuple(network(torch.empty(1, 1, rows, columns, device="meta")).shape)
                if shape != (1, CLASSES, rows, columns):
                    return f"its output has {shape[-2]} x {shape[-1]} pixels for {rows} x {columns}"
    except (RuntimeError, ValueError, TypeError, AssertionError, SettingsError) as error:
        cause = error.__cause__ or error
        return "it fails on it: " + (str(cause).splitlines() or [type(cause).__name__])[0].rstrip(".")
    return ""


def main() -> None:
    """Answer the parent; a name that is unknown has no answer."""
    faults: list[str | None] = []
    for architecture, encoder in json.load(sys.stdin):
        try:
            faults.append(fault_of(architecture, encoder))
        except SettingsError:
            faults.append(None)
    sys.stdout.write(json.dumps(faults))


if __name__ == "__main__":
    main()
