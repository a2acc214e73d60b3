"""Sweeps over architectures, encoders and training settings."""
