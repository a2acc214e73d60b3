"""DICOM in and out (the only place that imports pydicom and highdicom)."""
