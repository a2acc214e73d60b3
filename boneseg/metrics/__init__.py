"""Segmentation metrics: numpy in, numpy out."""
