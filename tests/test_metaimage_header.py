"""What MetaImage headers say is read as SimpleITK reads it, or refused in one sentence that quotes nothing of them."""

from pathlib import Path

import numpy as np
import pytest

from boneseg.errors import SeriesError
from boneseg.geometry import axial
from boneseg.itk_volume import is_metaimage, read_metaimage_header
from tests.test_nrrd_header import HU, ORDERS, SHAPE, by_simpleitk, turned
from tests.volume_formats import metaimage_header, mha, mhd


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_voxels_lie_where_simpleitk_puts_them(tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    geometry = turned(order, signs)
    header = read_metaimage_header(mha(tmp_path / "x.mha", HU, geometry))
    assert header.placed
    assert header.geometry == geometry
    assert header.geometry == by_simpleitk(tmp_path / "x.mha")
    assert header.warnings == ()


@pytest.mark.parametrize(
    ("letters", "orientation"), [("RAI", "SPL"), ("LPS", "IAR"), ("RPS", "IAL"), ("PIR", "LSA"), ("ASL", "RIP")]
)
def test_letters_place_a_volume_without_a_matrix(tmp_path: Path, letters: str, orientation: str) -> None:
    fields = {"TransformMatrix": None, "AnatomicalOrientation": letters}
    header = read_metaimage_header(mha(tmp_path / "x.mha", HU, axial(SHAPE, (3, 1, 1)), fields))
    assert header.placed
    # Letters say where column, row and slice begin, orientation where slice, row and column go.
    assert header.geometry.orientation == orientation


def test_letters_of_lps_are_what_simpleitk_takes_a_bare_header_for(tmp_path: Path) -> None:
    fields = {"TransformMatrix": None, "AnatomicalOrientation": "RAI"}
    header = read_metaimage_header(mha(tmp_path / "x.mha", HU, axial(SHAPE, (3, 0.5, 1)), fields))
    assert header.geometry == by_simpleitk(tmp_path / "x.mha")


@pytest.mark.parametrize(
    "fields",
    [
        {"TransformMatrix": None, "AnatomicalOrientation": None},
        {"TransformMatrix": None, "AnatomicalOrientation": "???"},
        {"TransformMatrix": None, "AnatomicalOrientation": "RRI"},
        {"Offset": None},
    ],
)
def test_a_volume_without_a_place_has_the_size_of_its_voxels_alone(
    tmp_path: Path, fields: dict[str, str | None]
) -> None:
    header = read_metaimage_header(mha(tmp_path / "x.mha", HU, axial(SHAPE, (3, 0.9, 1.1)), fields))
    assert not header.placed
    assert header.geometry.spacing == pytest.approx((3.0, 0.9, 1.1))
    assert "left and right are a guess" in header.warnings[-1]


@pytest.mark.parametrize("other", ["Rotation", "Orientation"])
def test_other_names_of_fields_are_known(tmp_path: Path, other: str) -> None:
    geometry = turned((1, 2, 0), (1, 1, -1))
    matrix = dict(line.split(" = ") for line in metaimage_header(HU, geometry, "x").decode().splitlines())
    fields = {"TransformMatrix": None, other: matrix["TransformMatrix"], "Offset": None, "Position": matrix["Offset"]}
    assert read_metaimage_header(mha(tmp_path / "x.mha", HU, geometry, fields)).geometry == geometry


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"NDims": "2", "DimSize": "5 12"}, "must have 3 dimensions"),
        ({"NDims": "4", "DimSize": "5 4 3 1"}, "must have 3 dimensions"),
        ({"NDims": "3", "DimSize": "5 12"}, "do not agree"),
        ({"DimSize": "5 4 -3"}, "DimSize is no numbers"),
        ({"DimSize": "20000 20000 20000"}, "MB of memory or more"),
        ({"ElementType": "MET_FLOAT_ARRAY"}, "ElementType is none"),
        ({"ElementType": None}, "ElementType is none"),
        ({"ElementNumberOfChannels": "3"}, "several channels"),
        ({"BinaryData": "False"}, "written as text"),
        ({"BinaryDataByteOrderMSB": "Jane Doe"}, "neither True nor False"),
        ({"ElementToIntensityFunctionSlope": "2"}, "is not read"),
        ({"ElementSpacing": None}, "has no ElementSpacing"),
        ({"ElementSpacing": "1 1 0"}, "no possible voxel size"),
        ({"ElementSpacing": "1 1"}, "is no 3 numbers"),
        ({"TransformMatrix": "2 0 0 0 2 0 0 0 2"}, "holds no directions"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "do not span a volume"),
        ({"Offset": "1e9 0 0"}, "puts the volume"),
        ({"HeaderSize": "12"}, "HeaderSize is no number"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    tmp_path: Path, fields: dict[str, str | None], reason: str
) -> None:
    path = mha(tmp_path / "x.mha", HU, axial(SHAPE, (3, 1, 1)), {"PatientName": "Jane Doe", **fields})
    with pytest.raises(SeriesError, match=r"^x\.mha: ") as caught:
        read_metaimage_header(path)
    assert reason in str(caught.value)
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x.raw", "a/x.raw", "LIST", "LIST 2D", "x%03d.raw 1 3 1", "x.raw 1 3 1", ".."]
)
def test_voxels_in_other_folders_or_in_many_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.mhd").write_bytes(metaimage_header(HU, axial(SHAPE, (3, 1, 1)), name))
    with pytest.raises(SeriesError, match="one file in its own folder") as caught:
        read_metaimage_header(tmp_path / "x.mhd")
    assert "passwd" not in str(caught.value)


def test_a_detached_header_names_the_file_beside_it(tmp_path: Path) -> None:
    assert (
        read_metaimage_header(mhd(tmp_path / "x.mhd", HU, axial(SHAPE, (3, 1, 1)), packed=True)).data_file == "x.zraw"
    )


def test_a_header_is_known_by_its_content(tmp_path: Path) -> None:
    assert is_metaimage(mha(tmp_path / "0123abcd", HU, axial(SHAPE, (3, 1, 1))))
    (tmp_path / "mesh").write_bytes(b"ObjectType = Mesh\nNDims = 3\n")
    assert not is_metaimage(tmp_path / "mesh")


def test_a_header_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = mha(tmp_path / "x.mha", np.zeros(SHAPE, dtype=np.int16), axial(SHAPE, (3, 1, 1)))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(SeriesError, match="the MetaImage header is damaged"):
        read_metaimage_header(path)
