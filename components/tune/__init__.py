"""The step tune."""
