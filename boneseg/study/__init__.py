"""A whole study: many networks on one dataset, compared in one report."""
