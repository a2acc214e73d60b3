"""Synthetic pelvic CT series for the demo and the tests."""
