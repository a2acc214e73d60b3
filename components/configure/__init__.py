"""The step configure."""
