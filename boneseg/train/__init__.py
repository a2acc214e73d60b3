"""Training: a plain torch loop, and its Ray Train adapter."""
