"""Networks by name, and trained models as folders."""
