import warnings
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.header import read_header
from boneseg.dicom.segmentation import read_segmentation
from boneseg.dicom.segmentation_write import write_segmentation
from boneseg.errors import LabelError, SeriesError
from boneseg.geometry import Geometry, from_nifti
from tests.dicom.test_series import SHAPE, change, series, turned, volume


def label() -> NDArray[np.uint8]:
    """Bone inside an outline, both off-centre, with empty slices at both ends."""
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[1:5, 4:30, 10:44] = 1
    mask[3:5, 8:15, 12:20] = 2
    return mask


@pytest.mark.parametrize("degrees", [(0, 0, 0), (90, 0, 0), (0, 90, 180), (12, -25, 40)])
@pytest.mark.parametrize("with_sources", [True, False])
def test_a_label_comes_back_with_its_geometry(
    tmp_path: Path, degrees: tuple[float, float, float], with_sources: bool
) -> None:
    geometry = turned(degrees)
    files, _ = series(tmp_path / "ct", geometry)
    write_segmentation(tmp_path / "label.dcm", label(), geometry, files[::-1] if with_sources else ())
    mask, place, names = read_segmentation(tmp_path / "label.dcm")
    assert np.array_equal(mask, label())
    assert place.close_to(geometry, tolerance_mm=1e-2)
    assert names == {1: "patient outline", 2: "bone"}


def test_highdicom_reads_the_label_at_the_same_place(tmp_path: Path) -> None:
    geometry = turned((12, -25, 40))
    write_segmentation(tmp_path / "label.dcm", label(), geometry)
    stored = hd.seg.segread(tmp_path / "label.dcm").get_volume(combine_segments=True)
    bone = np.argwhere(stored.array == 2).astype(np.float64)  # highdicom may count slices the other way
    place = (bone @ stored.affine[:3, :3].T + stored.affine[:3, 3]).mean(axis=0)
    np.testing.assert_allclose(place, centre(label(), geometry), atol=1e-2)
    assert len(bone) == (label() == 2).sum()


def test_the_label_refers_to_its_patient_study_and_slices(tmp_path: Path) -> None:
    files, _ = series(tmp_path / "ct")
    write_segmentation(tmp_path / "label.dcm", label(), turned((0, 0, 0)), ())
    geometry = turned((0, 0, 0))
    files = write_ct_series(tmp_path / "own", volume(), geometry, identity="own", patient_id="P7")
    write_segmentation(tmp_path / "label.dcm", label(), geometry, files)
    data = pydicom.dcmread(tmp_path / "label.dcm")
    header = read_header(files[0])
    assert header is not None
    assert (data.PatientID, data.StudyInstanceUID) == ("P7", header.study_uid)
    assert data.FrameOfReferenceUID == header.frame_of_reference
    referenced = data.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == header.series_uid
    wanted = {str(pydicom.dcmread(path).SOPInstanceUID) for path in files}
    assert {str(item.ReferencedSOPInstanceUID) for item in referenced.ReferencedInstanceSequence} == wanted


@pytest.mark.parametrize("fault", ["empty", "doubled"])
def test_sources_without_uids_of_their_own_still_give_a_label(tmp_path: Path, fault: str) -> None:
    geometry = turned((0, 0, 0))
    files, _ = series(tmp_path / "ct", geometry)
    for path in files:
        change(path, SOPInstanceUID="" if fault == "empty" else "1.2.3")
    write_segmentation(tmp_path / "label.dcm", label(), geometry, files)
    mask, place, _ = read_segmentation(tmp_path / "label.dcm")
    assert np.array_equal(mask, label())
    assert place.close_to(geometry)
    data = pydicom.dcmread(tmp_path / "label.dcm")
    uids = [item.ReferencedSOPInstanceUID for item in data.ReferencedSeriesSequence[0].ReferencedInstanceSequence]
    assert len(set(uids)) == SHAPE[0]


def test_a_patient_name_is_not_printed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    geometry = turned((0, 0, 0))
    files = write_ct_series(tmp_path, volume(), geometry, identity="a", patient_id="SECRETNAME")
    with warnings.catch_warnings(record=True) as caught, caplog.at_level("INFO"):
        warnings.simplefilter("always")
        write_segmentation(tmp_path / "label.dcm", label(), geometry, files)
    assert "SECRETNAME" not in caplog.text + str([str(warning.message) for warning in caught])
    assert "1.2.826" not in caplog.text


def test_a_left_handed_nifti_grid_survives(tmp_path: Path) -> None:
    geometry = from_nifti(SHAPE, np.diag([0.9, 0.8, 3.0, 1.0]))  # columns run to the left, as in many NIfTI files
    write_segmentation(tmp_path / "label.dcm", label(), geometry)
    mask, place, _ = read_segmentation(tmp_path / "label.dcm")
    np.testing.assert_allclose(centre(mask, place), centre(label(), geometry), atol=1e-2)


def centre(mask: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.float64]:
    return geometry.to_patient(np.argwhere(mask == 2).astype(np.float64)).mean(axis=0)


def foreign(
    tmp_path: Path, geometry: Geometry, pixels: NDArray[np.generic], kind: str, segments: int, **options: object
) -> Path:
    """Write a SEG with highdicom as another program would: empty frames left out."""
    files, _ = series(tmp_path / "ct", geometry)
    descriptions = [
        hd.seg.SegmentDescription(n, f"organ {n}", codes.SCT.Tissue, codes.SCT.Tissue, "MANUAL")
        for n in range(1, segments + 1)
    ]
    data = hd.seg.Segmentation(
        [pydicom.dcmread(path) for path in files],
        pixels,
        kind,
        descriptions,
        series_instance_uid=hd.UID(),
        series_number=2,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="other",
        manufacturer_model_name="other",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    data.save_as(tmp_path / "foreign.dcm")
    return tmp_path / "foreign.dcm"


@pytest.mark.filterwarnings("ignore")
def test_missing_empty_frames_leave_the_rest_in_place(tmp_path: Path) -> None:
    geometry = turned((12, -25, 40))
    mask = label()
    mask[3] = 0
    back, place, names = read_segmentation(foreign(tmp_path, geometry, mask, "BINARY", 2))
    assert np.array_equal(back, mask[1:5])
    np.testing.assert_allclose(centre(back, place), centre(mask, geometry), atol=1e-2)
    assert place.spacing == pytest.approx(geometry.spacing, abs=1e-3)
    assert names == {1: "organ 1", 2: "organ 2"}


@pytest.mark.filterwarnings("ignore")
def test_fractions_count_from_one_half(tmp_path: Path) -> None:
    geometry = turned((0, 0, 0))
    share = np.zeros(SHAPE)
    share[:, 5:20, 5:20] = 0.4
    share[:, 10:15, 10:15] = 0.8
    back, _, _ = read_segmentation(foreign(tmp_path, geometry, share, "FRACTIONAL", 1))
    assert np.array_equal(back, share > 0.5)


@pytest.mark.filterwarnings("ignore")
def test_label_maps_are_read(tmp_path: Path) -> None:
    geometry = turned((0, 0, 0))
    back, place, names = read_segmentation(foreign(tmp_path, geometry, label(), "LABELMAP", 2, omit_empty_frames=False))
    assert np.array_equal(back, label())
    assert place.close_to(geometry)
    assert names == {1: "organ 1", 2: "organ 2"}


@pytest.mark.filterwarnings("ignore")
def test_a_bone_inside_an_overlapping_outline_stays_bone(tmp_path: Path) -> None:
    geometry = turned((0, 0, 0))
    both = np.stack([label() == 2, label() > 0], axis=-1).astype(np.uint8)  # bone first, the outline filled
    back, _, _ = read_segmentation(foreign(tmp_path, geometry, both, "BINARY", 2))
    expected = np.select([label() == 2, label() == 1], [1, 2], 0)[1:5]
    assert np.array_equal(back, expected)


def test_a_ct_slice_or_a_cut_file_is_no_label(tmp_path: Path) -> None:
    geometry = turned((0, 0, 0))
    files, _ = series(tmp_path / "ct", geometry)
    with pytest.raises(LabelError, match="not a DICOM SEG"):
        read_segmentation(files[0])
    write_segmentation(tmp_path / "label.dcm", label(), geometry)
    whole = (tmp_path / "label.dcm").read_bytes()
    (tmp_path / "label.dcm").write_bytes(whole[:-200])
    with pytest.raises(LabelError, match=r"label\.dcm.*cut short"):
        read_segmentation(tmp_path / "label.dcm")


def test_a_grid_sheared_in_plane_cannot_become_dicom(tmp_path: Path) -> None:
    geometry = turned((0, 0, 0))
    geometry.affine[0, 1] = 0.2
    with pytest.raises(SeriesError, match="right angles"):
        write_segmentation(tmp_path / "label.dcm", label(), geometry)
    assert list(tmp_path.iterdir()) == []


def test_the_same_label_and_date_give_the_same_bytes(tmp_path: Path) -> None:
    geometry, files = turned((0, 0, 0)), set()
    for name in ("a.dcm", "b.dcm"):
        write_segmentation(tmp_path / name, label(), geometry, created=datetime(2020, 2, 3, 4, 5))
        files.add((tmp_path / name).read_bytes())
    assert len(files) == 1
    assert pydicom.dcmread(tmp_path / "a.dcm").ContentDate == "20200203"
