from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray

from boneseg.errors import BonesegError, LabelError, SeriesError
from boneseg.geometry import Geometry, to_axial
from boneseg.ingest.label_file import local_file
from boneseg.ingest.local import local_series
from boneseg.ingest.read import LabelledSeries, read_image, read_labelled
from boneseg.nifti import write_volume
from boneseg.settings.schema import PrepareSettings
from boneseg.storage.catalogue import FileKind, GeometryRecord, LabelRow, ObjectRef, SeriesRow
from boneseg.storage.hashing import sha256_file
from tests.ct_files import body, dicom, nifti, place, seg_label

SETTINGS = PrepareSettings()


def reference(path: Path) -> ObjectRef:
    return ObjectRef(key=str(path), size=path.stat().st_size, etag="", sha256=sha256_file(path))


def read(folder: Path, settings: PrepareSettings = SETTINGS, label: Path | None = None) -> LabelledSeries:
    """Read the one series in a folder; ``label`` attaches a label whatever its geometry."""
    rows, problems = local_series(folder)
    assert len(rows) == 1, problems
    row = rows[0]
    if label is not None:
        row = with_label(row, label)
    return read_labelled(lambda ref: Path(ref.key), row, settings)


def with_label(row: SeriesRow, path: Path) -> SeriesRow:
    kind = FileKind.DICOM_SEG if path.suffix == ".dcm" else FileKind.NIFTI
    return row.model_copy(update={"label": LabelRow(kind=kind, object=reference(path), values=(1,))})


def write_label(path: Path, label: NDArray[np.uint8], geometry: Geometry) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, label, geometry)
    return path


def test_dicom_with_nifti_label_is_read_in_axial_order(tmp_path: Path) -> None:
    dicom(tmp_path / "ct")
    hu, label = body()
    write_label(tmp_path / "label.nii.gz", label, place())
    series = read(tmp_path)
    np.testing.assert_array_equal(series.hu, hu)
    np.testing.assert_array_equal(series.label, label)
    assert series.geometry.close_to(place())
    assert (series.hu.dtype, series.label.dtype) == (np.int16, np.uint8)
    assert series.hu.flags.c_contiguous
    assert series.label.flags.c_contiguous
    assert not series.outline_computed
    assert series.warnings == ()


def test_dicom_seg_labels_are_read_by_segment_name(tmp_path: Path) -> None:
    dicom(tmp_path / "ct")
    seg_label(tmp_path / "label.dcm")
    np.testing.assert_array_equal(read(tmp_path).label, body()[1])


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (0, 2, 1)])
def test_image_and_label_in_other_orders_of_axes_come_out_alike(tmp_path: Path, order: tuple[int, int, int]) -> None:
    hu, label = body(shape=(6, 20, 24))
    geometry = place((6, 20, 24), at=(-30, 12, 5))
    affine = geometry.affine[:, [*order, 3]]
    affine[:3, 3] += affine[:3, 0] * (hu.shape[order[0]] - 1)
    affine[:3, 0] *= -1
    turned = Geometry(tuple(np.array(hu.shape)[list(order)]), affine)
    write_volume(tmp_path / "ct.nii.gz", np.flip(hu.transpose(order), 0), turned)
    write_label(tmp_path / "label.nii.gz", label, geometry)
    series = read(tmp_path)
    np.testing.assert_array_equal(series.hu, hu)
    np.testing.assert_array_equal(series.label, label)
    assert series.geometry.close_to(geometry)
    np.testing.assert_array_equal(series.reorientation.undo(series.hu), np.flip(hu.transpose(order), 0))


def test_bone_lies_where_another_reader_sees_it(tmp_path: Path) -> None:
    hu, label = body(shape=(6, 20, 24))
    geometry = Geometry((24, 20, 6), place((6, 20, 24), at=(3, 4, 5)).affine[:, [2, 1, 0, 3]])
    write_volume(tmp_path / "ct.nii.gz", hu.transpose(2, 1, 0), geometry)
    path = write_label(tmp_path / "label.nii.gz", label.transpose(2, 1, 0), geometry)
    image = SimpleITK.ReadImage(str(path))
    indices = np.argwhere(SimpleITK.GetArrayFromImage(image) == 2)[:, ::-1]
    points = np.array([image.TransformIndexToPhysicalPoint(index.tolist()) for index in indices])
    series = read(tmp_path)
    ours = series.geometry.to_patient(np.argwhere(series.label == 2).astype(np.float64))
    np.testing.assert_allclose(ours.mean(axis=0), points.mean(axis=0), atol=1e-3)


def test_the_outline_is_computed_where_the_label_holds_only_bone(tmp_path: Path) -> None:
    nifti(tmp_path / "ct.nii.gz")
    label = body()[1]
    write_label(tmp_path / "label.nii.gz", (label == 2).astype(np.uint8), place())
    series = read(tmp_path)
    assert series.outline_computed
    assert ((series.label == 2) == (label == 2)).all()
    assert ((series.label >= 1) != (label >= 1)).mean() < 0.02


def test_only_slices_that_the_label_covers_are_used(tmp_path: Path) -> None:
    dicom(tmp_path / "ct")
    hu, label = body()
    geometry = place((3, 24, 24), at=(0, 0, 6))
    series = read(tmp_path, label=write_label(tmp_path / "label.nii.gz", label[2:5], geometry))
    np.testing.assert_array_equal(series.hu, hu[2:5])
    assert series.geometry.close_to(geometry)
    assert any("covers 3 of 6 slices" in warning for warning in series.warnings)


def test_a_label_of_another_geometry_is_refused(tmp_path: Path) -> None:
    dicom(tmp_path / "ct")
    shifted = write_label(tmp_path / "label.nii.gz", body()[1], place(at=(0.5, 0, 0)))
    with pytest.raises(LabelError, match="label's grid"):
        read(tmp_path, label=shifted)


def test_a_label_with_an_unknown_value_is_refused_by_file_and_value(tmp_path: Path) -> None:
    nifti(tmp_path / "ct.nii.gz")
    label = body()[1]
    label[0, 0, 0] = 7
    write_label(tmp_path / "bones.nii.gz", label, place())
    with pytest.raises(LabelError, match=r"bones\.nii\.gz: label values 1, 2, 7 .*prepare\.label_map"):
        read(tmp_path)
    mapped = read(tmp_path, PrepareSettings(label_map={1: 1, 2: 2, 7: 0}))
    np.testing.assert_array_equal(mapped.label, body()[1])


def test_a_truncated_slice_refuses_the_series_by_its_name(tmp_path: Path) -> None:
    paths = dicom(tmp_path / "ct")
    seg_label(tmp_path / "label.dcm")
    row = with_label(local_series(tmp_path)[0][0], tmp_path / "label.dcm")
    paths[2].write_bytes(paths[2].read_bytes()[:-500])
    with pytest.raises(SeriesError, match=paths[2].name):
        read_labelled(lambda ref: Path(ref.key), row, SETTINGS)


def test_messages_name_the_users_file_not_the_cached_one(tmp_path: Path) -> None:
    dicom(tmp_path / "ct")
    seg_label(tmp_path / "label.dcm")
    row = with_label(local_series(tmp_path)[0][0], tmp_path / "label.dcm")
    for item in row.objects:
        (tmp_path / item.sha256).write_bytes(Path(item.key).read_bytes())
    broken = tmp_path / row.objects[0].sha256
    broken.write_bytes(broken.read_bytes()[:-500])
    with pytest.raises(SeriesError) as caught:
        read_labelled(lambda ref: tmp_path / ref.sha256, row, SETTINGS)
    assert Path(row.objects[0].key).name in str(caught.value)
    assert row.objects[0].sha256 not in str(caught.value)


def test_values_that_are_not_numbers_become_air(tmp_path: Path) -> None:
    hu, label = body()
    values = hu.astype(np.float32) + 0.3
    values[0, 0, :3] = np.nan
    write_volume(tmp_path / "ct.nii.gz", values, place())
    write_label(tmp_path / "label.nii.gz", label, place())
    series = read(tmp_path)
    assert (series.hu[0, 0, :3] == -1024).all()
    np.testing.assert_array_equal(series.hu[1:], hu[1:])
    assert any("3 voxels are not numbers" in warning for warning in series.warnings)


def test_stored_values_without_rescale_are_refused(tmp_path: Path) -> None:
    hu, label = body()
    write_volume(tmp_path / "ct.nii.gz", (hu + 1024).astype(np.uint16), place())
    write_label(tmp_path / "label.nii.gz", label, place())
    row = with_label(raw_row(tmp_path / "ct.nii.gz", place()), tmp_path / "label.nii.gz")
    with pytest.raises(SeriesError, match="stored values, not HU"):
        read_labelled(lambda ref: Path(ref.key), row, SETTINGS)


def test_a_dicom_series_of_stored_values_is_refused_also_without_a_label(tmp_path: Path) -> None:
    for path in dicom(tmp_path / "ct"):
        data = pydicom.dcmread(path)
        del data.RescaleSlope, data.RescaleIntercept
        data.save_as(path)
    (row,), _ = local_series(tmp_path)
    with pytest.raises(SeriesError, match="as if 1024 or 1000 had been added"):
        read_image(local_file, row, SETTINGS)


def raw_row(path: Path, geometry: Geometry) -> SeriesRow:
    return SeriesRow(
        series="s",
        source=path.name,
        kind=FileKind.NIFTI,
        objects=(reference(path),),
        patient="p",
        study="s",
        modality="CT",
        geometry=GeometryRecord.of(geometry),
        hu_range=(0, 1),
        label=None,
    )


def test_a_series_without_label_is_refused(tmp_path: Path) -> None:
    nifti(tmp_path / "ct.nii.gz")
    with pytest.raises(LabelError, match="has no label"):
        read(tmp_path)


def test_tilted_series_keep_their_tilt(tmp_path: Path) -> None:
    geometry = place()
    geometry.affine[1, 0] = np.tan(np.radians(0.8)) * 3.0
    dicom(tmp_path / "ct", geometry=geometry)
    label = write_label(tmp_path / "label.nii.gz", body()[1], geometry)
    series = read(tmp_path, label=label)
    assert series.geometry.close_to(to_axial(geometry)[0])
    with pytest.raises(BonesegError, match="tilted"):
        read(tmp_path, PrepareSettings(max_tilt_degrees=0.5), label=label)


def test_a_sheared_nifti_volume_is_named_as_that_and_limited_as_a_tilt(tmp_path: Path) -> None:
    geometry = place()
    geometry.affine[1, 0] = np.tan(np.radians(4)) * 3.0
    nifti(tmp_path / "ct.nii.gz", geometry=geometry)
    write_label(tmp_path / "label.nii.gz", body()[1], geometry)
    with pytest.raises(SeriesError, match=r"sheared: two of its axes are 4\.0 degrees off a right angle"):
        read(tmp_path)
    series = read(tmp_path, PrepareSettings(max_tilt_degrees=5))
    assert any("sheared by 4.00 degrees" in warning for warning in series.warnings)
    assert series.geometry.close_to(to_axial(geometry)[0])
