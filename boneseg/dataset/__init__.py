"""From raw objects to slices a network trains on: pull, checks, splits, shards, torch dataset."""
