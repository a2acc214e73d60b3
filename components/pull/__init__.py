"""The step pull."""
