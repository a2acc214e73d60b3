"""Series of any volume format get their masks, and 3D Slicer's segmentation says what its values mean."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from click.testing import CliRunner
from numpy.typing import NDArray

from boneseg.cli import cli
from boneseg.errors import SeriesError
from boneseg.geometry import axial
from boneseg.ingest.local import local_series
from boneseg.ingest.read import read_labelled
from boneseg.itk_volume import write_slicer_segmentation
from boneseg.nifti import write_volume
from boneseg.predict.masks import write_masks
from boneseg.predict.predict import predict_series
from boneseg.scheme import LabelScheme
from boneseg.scheme.builtin import BONE, PELVIS, SKELETON
from boneseg.settings.schema import PrepareSettings
from tests.predict.test_predict import (
    body_with_bone,
    centre,
    centre_by_simpleitk,
    corner_mask,
    model,
    orientations,
    placed,
)
from tests.volume_formats import mha, mhd, nhdr, nrrd

__all__ = ["model"]  # the fixture
ALL = ("nifti", "seg", "seg.nrrd")


@pytest.mark.parametrize("oblique", [0.0, 0.3])
@pytest.mark.parametrize(("order", "signs"), orientations())
def test_a_slicer_segmentation_lies_where_the_mask_lies(
    tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...], oblique: float
) -> None:
    geometry, mask = placed(order, signs, oblique), corner_mask()
    (path,) = write_masks(tmp_path, mask, geometry, formats=("seg.nrrd",)).files
    image = SimpleITK.ReadImage(str(path))
    np.testing.assert_allclose(centre_by_simpleitk(image), centre(mask, geometry), atol=1e-3)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), mask)


def pelvis_mask(scheme: LabelScheme) -> NDArray[np.uint8]:
    """A mask with every class, in blocks."""
    mask = np.zeros((6, 8, 8 * scheme.size), dtype=np.uint8)
    mask[1:5, 1:7, 1:-1] = scheme.body or 0
    for value in scheme.bones:
        mask[2:4, 2:6, 8 * value + 1 : 8 * value + 7] = value
    return mask


def fields(path: Path) -> dict[str, str]:
    """Read the key/value pairs of a NRRD header without any library."""
    head = path.read_bytes().partition(b"\n\n")[0].decode()
    return dict(line.split(":=", 1) for line in head.splitlines() if ":=" in line)


@pytest.mark.parametrize("scheme", [BONE, PELVIS, SKELETON], ids=lambda scheme: scheme.name)
def test_segments_have_names_colours_and_codes_with_their_sides(tmp_path: Path, scheme: LabelScheme) -> None:
    mask = pelvis_mask(scheme)
    write_slicer_segmentation(tmp_path / "mask.seg.nrrd", mask, axial(mask.shape, (3, 1, 1)), scheme)
    found = fields(tmp_path / "mask.seg.nrrd")
    assert found["Segmentation_MasterRepresentation"] == "Binary labelmap"
    assert sum(key.endswith("_LabelValue") for key in found) == scheme.size - 1
    for number, item in enumerate(scheme.classes[1:]):
        prefix = f"Segment{number}_"
        assert (found[f"{prefix}Name"], found[f"{prefix}LabelValue"]) == (item.name, str(number + 1))
        colour = [float(part) for part in found[f"{prefix}Color"].split()]
        np.testing.assert_allclose(np.array(colour) * 255, item.colour, atol=0.01)
        _, category, kind, side, *rest = found[f"{prefix}Tags"].removeprefix("TerminologyEntry:").rstrip("|").split("~")
        assert category == "SCT^123037004^Anatomical Structure"
        if item.code:
            assert kind == f"SCT^{item.code.value}^{item.code.meaning}"
        sides = {"left": "SCT^7771000^Left", "right": "SCT^24028007^Right", None: "^^"}
        assert side == sides[item.side]
        assert len(rest) == 3
        where = np.argwhere(mask == number + 1)
        ends = [end for axis in (2, 1, 0) for end in (where[:, axis].min(), where[:, axis].max())]
        assert found[f"{prefix}Extent"] == " ".join(map(str, ends))


def test_a_class_that_is_not_there_has_an_empty_extent(tmp_path: Path) -> None:
    mask = np.zeros((3, 4, 5), dtype=np.uint8)
    write_slicer_segmentation(tmp_path / "mask.seg.nrrd", mask, axial(mask.shape, (3, 1, 1)), BONE)
    assert fields(tmp_path / "mask.seg.nrrd")["Segment1_Extent"] == "0 -1 0 -1 0 -1"


def test_what_is_written_is_read_as_the_label_that_it_is(tmp_path: Path) -> None:
    mask = pelvis_mask(PELVIS)
    geometry = axial(mask.shape, (3, 1, 1))
    hu = np.choose(np.minimum(mask, 2), (-1000, 40, 700)) + np.random.default_rng(0).integers(-20, 20, mask.shape)
    write_volume(tmp_path / "ct.nii.gz", hu.astype(np.int16), geometry)
    write_slicer_segmentation(tmp_path / "label.seg.nrrd", mask, geometry, PELVIS)
    (row,), problems = local_series(tmp_path)
    assert not [problem for problem in problems if problem.fatal]
    found = read_labelled(lambda ref: Path(ref.key), row, PrepareSettings(), PELVIS)
    np.testing.assert_array_equal(found.label, mask)
    assert found.labelling.sets == ()


def test_nothing_is_left_of_a_segmentation_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("itk: no space left on device")

    monkeypatch.setattr(SimpleITK, "WriteImage", full)
    with pytest.raises(SeriesError, match="cannot be written"):
        write_slicer_segmentation(tmp_path / "mask.seg.nrrd", corner_mask(), axial((10, 14, 18), (3, 1, 1)), BONE)
    assert list(tmp_path.iterdir()) == []


def test_the_names_beside_a_mask_say_all_that_the_scheme_does(tmp_path: Path) -> None:
    scheme = PELVIS
    write_masks(tmp_path, corner_mask(), axial((10, 14, 18), (3, 1, 1)), scheme=scheme)
    rows = json.loads((tmp_path / "mask.json").read_text())["classes"]
    assert [(row["value"], row["name"]) for row in rows] == list(enumerate(scheme.names))
    femur, other = rows[4], rows[5]
    assert (femur["side"], femur["partner"], femur["role"]) == ("left", other["name"], "bone")
    assert (femur["code"], femur["meaning"]) == ("71341001", "Femur")


def test_masks_of_an_earlier_run_in_other_formats_go(tmp_path: Path) -> None:
    mask, geometry = corner_mask(), axial((10, 14, 18), (3, 1, 1))
    write_masks(tmp_path, mask, geometry, formats=ALL)
    written = write_masks(tmp_path, mask, geometry, formats=("seg.nrrd",))
    assert {path.name for path in tmp_path.glob("mask.*")} == {"mask.seg.nrrd", "mask.json", "mask.ctbl"}
    assert [path.name for path in written.files] == ["mask.seg.nrrd"]


def test_a_series_of_every_format_gets_the_same_masks(tmp_path: Path, model: Path) -> None:
    hu = body_with_bone()
    geometry = axial(hu.shape, (2.0, 2.0, 2.0))
    geometry.affine[:3, 3] = (5.0, -60.0, 700.0)
    for name in ("nii", "nrrd", "nhdr", "mha", "mhd"):
        (tmp_path / name).mkdir()
    write_volume(tmp_path / "nii" / "ct.nii.gz", hu, geometry)
    nrrd(tmp_path / "nrrd" / "ct.nrrd", hu, geometry, "gzip")
    nhdr(tmp_path / "nhdr" / "ct.nhdr", hu, geometry)
    mha(tmp_path / "mha" / "ct.mha", hu, geometry, packed=True)
    mhd(tmp_path / "mhd" / "ct.mhd", hu, geometry, packed=True)
    wanted = None
    for name in ("nii", "nrrd", "nhdr", "mha", "mhd"):
        written = predict_series(model, tmp_path / name, tmp_path / f"out-{name}", formats=ALL)
        assert [path.relative_to(tmp_path / f"out-{name}").as_posix() for path in written] == [
            *("ct/mask.nii.gz", "ct/mask.dcm", "ct/mask.seg.nrrd")
        ]
        nifti, slicer = (SimpleITK.ReadImage(str(path)) for path in (written[0], written[2]))
        mask = SimpleITK.GetArrayFromImage(nifti)
        wanted = mask if wanted is None else wanted
        assert len(np.unique(mask)) > 1
        np.testing.assert_array_equal(mask, wanted)
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(slicer), wanted)
        for image in (nifti, slicer):
            np.testing.assert_allclose(image.GetOrigin(), (5.0, -60.0, 700.0), atol=1e-4)
            np.testing.assert_allclose(image.GetDirection(), np.eye(3).ravel(), atol=1e-6)


def test_a_series_without_a_place_gets_a_mask_without_one(tmp_path: Path, model: Path) -> None:
    hu = body_with_bone()
    path = nrrd(
        tmp_path / "ct.nrrd", hu, axial(hu.shape, (2.0, 2.0, 2.0)), fields={"space": None, "space dimension": "3"}
    )
    mask = nib.load(predict_series(model, path, tmp_path / "out")[0])
    assert (int(mask.header["sform_code"]), int(mask.header["qform_code"])) == (0, 0)
    assert mask.shape == hu.shape[::-1]
    assert mask.header.get_zooms() == pytest.approx((2.0, 2.0, 2.0))


def test_the_command_writes_what_is_asked_for(tmp_path: Path, model: Path) -> None:
    hu = body_with_bone()
    path = mhd(tmp_path / "ct.mhd", hu, axial(hu.shape, (2.0, 2.0, 2.0)))
    command = ["predict", str(path), "--model", str(model), "--out", str(tmp_path / "out"), "--format", "seg.nrrd"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.output.split() == [str(tmp_path / "out" / "ct" / "mask.seg.nrrd")]
    assert CliRunner().invoke(cli, [*command[:-1], "stl"]).exit_code == 2
