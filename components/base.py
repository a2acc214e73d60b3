"""What all components share: one image, in which nothing is installed at start-up."""

import functools
import os

from kfp import dsl

from boneseg import __version__

IMAGE_VARIABLE = "BONESEG_IMAGE"
"""Environment variable that names the image when a pipeline is compiled."""

IMAGE = os.environ.get(IMAGE_VARIABLE) or f"ghcr.io/boneseg/boneseg:{__version__}"

component = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
"""Decorator for a step.

A step's function travels to the cluster as its source text alone: all it uses is imported inside it, and its
annotations use only ``dsl`` and ``NamedTuple``.
"""
