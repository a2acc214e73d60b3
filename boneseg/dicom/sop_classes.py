"""SOP classes by which DICOM files say what they are (PS3.4, annex B.5)."""

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
CT_CLASSES = (CT_IMAGE, f"{CT_IMAGE}.1", f"{CT_IMAGE}.2")
"""CT, Enhanced CT and Legacy Converted Enhanced CT Image Storage."""
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage and Label Map Segmentation Storage."""
STRUCTURE_SETS = "1.2.840.10008.5.1.4.1.1.481.3"
"""RT Structure Set Storage."""
SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
"""Secondary Capture Image Storage; its multi-frame kinds start with it."""
