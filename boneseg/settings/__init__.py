"""Settings of a run: their schema, how they are loaded, and the recipes they start from."""
