"""boneseg: from a bucket of CT series to a published bone segmentation model."""

__version__ = "0.1.0"
