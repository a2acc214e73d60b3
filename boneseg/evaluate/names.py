"""What methods are called: in records and columns by their names, in rows of tables by what a person reads."""

from __future__ import annotations

from boneseg.settings.schema import EvaluateSettings

NETWORK, THRESHOLD, ENSEMBLE = "network", "threshold", "ensemble"


def method_title(method: str, network: str, settings: EvaluateSettings) -> str:
    """Return what rows of tables call a method.

    Args:
        method: its name in the table of methods.
        network: architecture/encoder.
        settings: of the evaluation.
    """
    return {NETWORK: network, THRESHOLD: f"threshold {settings.threshold_hu:g} HU"}.get(method, method)
