"""A real, untrained model, as evaluations have it."""

from tests.evaluate.conftest import model_folder

__all__ = ["model_folder"]
