"""Augmentation: random changes of training slices that keep their labels true."""
