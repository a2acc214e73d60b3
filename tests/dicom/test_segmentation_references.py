import warnings
from pathlib import Path

import highdicom as hd
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes

from boneseg.dicom.header import read_header
from boneseg.dicom.segmentation import read_references
from boneseg.dicom.segmentation_references import references_of
from boneseg.dicom.segmentation_write import write_segmentation
from boneseg.ingest.facts import inspect
from boneseg.storage.catalogue import ObjectRef
from tests.dicom.test_segmentation import label
from tests.dicom.test_series import series, turned

SECRET = b"secret"


def seg_by_highdicom(folder: Path, files: list[Path]) -> Path:
    """Write a SEG as another program would, on given source images."""
    description = hd.seg.SegmentDescription(1, "bone", codes.SCT.Tissue, codes.SCT.Bone, "MANUAL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = hd.seg.Segmentation(
            [pydicom.dcmread(path) for path in files],
            (label() == 2).astype("uint8"),
            "BINARY",
            [description],
            series_instance_uid=hd.UID(),
            series_number=2,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="other",
            manufacturer_model_name="other",
            software_versions="1",
            device_serial_number="1",
        )
    data.save_as(folder / "seg.dcm")
    return folder / "seg.dcm"


@pytest.mark.parametrize("by", ["highdicom", "boneseg"])
def test_a_seg_tells_the_series_and_images_that_it_was_drawn_on(tmp_path: Path, by: str) -> None:
    geometry = turned((0, 0, 0))
    files, _ = series(tmp_path / "ct", geometry)
    path = tmp_path / "seg.dcm"
    if by == "highdicom":
        seg_by_highdicom(tmp_path, files)
    else:
        write_segmentation(path, label(), geometry, files)
    header = read_header(files[0])
    assert header is not None
    found = read_references(path)
    own = {str(pydicom.dcmread(file).SOPInstanceUID) for file in files}
    assert (found.series, found.frame_of_reference) == (header.series_uid, header.frame_of_reference)
    assert found.images
    assert set(found.images) <= own
    facts = inspect(path, ObjectRef(key="k", size=1, etag="", sha256=""), SECRET)
    assert facts.referenced_series == inspect(files[0], ObjectRef(key="k", size=1, etag="", sha256=""), SECRET).series
    assert len(facts.referenced_images) == len(found.images)
    assert not any(uid in facts.to_json().decode() for uid in (found.series, found.frame_of_reference, *found.images))


def item(**values: object) -> Dataset:
    data = Dataset()
    for keyword, value in values.items():
        setattr(data, keyword, Sequence(value) if isinstance(value, list) else value)
    return data


def images(*uids: str) -> list[Dataset]:
    return [item(ReferencedSOPInstanceUID=uid) for uid in uids]


def test_of_several_series_that_is_meant_which_the_frames_come_from() -> None:
    pet = item(SeriesInstanceUID="1.1", ReferencedInstanceSequence=images("1.1.1"))
    ct = item(SeriesInstanceUID="1.2", ReferencedInstanceSequence=images("1.2.1", "1.2.2"))
    elsewhere = item(ReferencedSeriesSequence=[ct])
    frames = [item(DerivationImageSequence=[item(SourceImageSequence=images(uid))]) for uid in ("1.2.2", "1.2.1")]
    data = item(ReferencedSeriesSequence=[pet], StudiesContainingOtherReferencedInstancesSequence=[elsewhere])
    assert (references_of(data).series, references_of(data).images) == ("", ("1.1.1", "1.2.1", "1.2.2"))
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    assert (references_of(data).series, references_of(data).images) == ("1.2", ("1.2.2", "1.2.1"))


def test_a_seg_that_references_nothing_or_nonsense_says_nothing() -> None:
    assert references_of(Dataset()).images == ()
    assert references_of(item(ReferencedSeriesSequence=[Dataset()], SourceImageSequence=[Dataset()])).series == ""
