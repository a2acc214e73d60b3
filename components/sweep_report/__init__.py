"""Step: the best trials of a sweep measured, alone and together."""
