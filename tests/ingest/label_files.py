"""Labels as real files beside the series of ``tests.ct_files``, and what is read of them."""

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from boneseg.ingest.read import LabelledSeries, read_labelled
from boneseg.nifti import write_volume
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.catalogue import Problem, SeriesRow
from tests.ct_files import body, place


def seg(path: Path, sources: list[Path], names: dict[int, str], mask: NDArray[np.uint8] | None = None) -> Path:
    """Write a SEG that references its source images, each segment at a place of its own."""
    images = sorted((pydicom.dcmread(source) for source in sources), key=lambda data: data.ImagePositionPatient[2])
    if mask is None:
        bone = np.argwhere(body()[1] == 2)
        mask = np.zeros((len(images), 24, 24), np.uint8)
        for number, points in zip(sorted(names), np.array_split(bone, len(names)), strict=True):
            mask[tuple(points.T)] = number
    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type="MANUAL",
        )
        for number, name in sorted(names.items())
    ]
    data = hd.seg.Segmentation(
        source_images=images,
        pixel_array=mask,
        segmentation_type="BINARY",
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path)
    return path


def masks(folder: Path, names: Sequence[str], value: int = 1) -> NDArray[np.uint8]:
    """Write one mask a name, the bone's voxels shared out among them; return all of them together."""
    folder.mkdir(parents=True, exist_ok=True)
    bone = np.argwhere(body()[1] == 2)
    everything = np.zeros(body()[1].shape, np.uint8)
    for name, points in zip(names, np.array_split(bone, len(names)), strict=True):
        mask = np.zeros_like(everything)
        mask[tuple(points.T)] = value
        everything |= mask
        write_volume(folder / f"{name}.nii.gz", mask, place())
    return everything


def labels_of(row: SeriesRow) -> list[str]:
    """Return the names of the files that are the label of a series."""
    return [] if row.label is None else [Path(p.object.key).name for p in row.label.parts or (row.label,)]


def fatal(problems: tuple[Problem, ...]) -> list[str]:
    """Return what is left out."""
    return [problem.source for problem in problems if problem.fatal]


def read(row: SeriesRow, settings: PrepareSettings | None = None) -> LabelledSeries:
    """Read a series of a local folder with its label."""
    return read_labelled(lambda ref: Path(ref.key), row, settings or PrepareSettings())
