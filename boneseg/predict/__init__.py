"""A series in; a mask out."""
