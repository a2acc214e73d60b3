"""What NRRD headers say is read as SimpleITK reads it, or refused in one sentence that quotes nothing of them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from boneseg.errors import SeriesError
from boneseg.geometry import Geometry, axial, to_axial
from boneseg.itk_volume import is_nrrd, read_nrrd_header
from tests.volume_formats import nhdr, nrrd, part_of, vectors

SHAPE = (3, 4, 5)
HU = np.arange(60, dtype=np.int16).reshape(SHAPE)
ORDERS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((-1, 1), repeat=3)
]


def turned(order: tuple[int, ...], signs: tuple[int, ...], shape: tuple[int, int, int] = SHAPE) -> Geometry:
    """Return a grid whose axes run along the patient's in any of 48 ways, a little oblique."""
    directions = np.zeros((3, 3))
    for axis, (patient_axis, sign) in enumerate(zip(order, signs, strict=True)):
        directions[patient_axis, axis] = sign
    cos, sin = np.cos(0.2), np.sin(0.2)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ directions * (3.0, 0.9, 1.1)
    affine[:3, 3] = (40.0, -70.5, 333.0)
    return Geometry(shape, affine)


def by_simpleitk(path: Path) -> Geometry:
    """Return where an independent reader puts the voxels."""
    image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    columns, rows, slices = image.GetSize()
    return Geometry((slices, rows, columns), affine)


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_voxels_lie_where_simpleitk_puts_them(tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    geometry = turned(order, signs)
    header = read_nrrd_header(nrrd(tmp_path / "x.nrrd", HU, geometry))
    assert header.placed
    assert header.geometry == geometry
    assert header.geometry == by_simpleitk(tmp_path / "x.nrrd")
    assert header.warnings == ()


@pytest.mark.parametrize(
    ("space", "signs"),
    [("right-anterior-superior", (-1, -1, 1)), ("RAS", (-1, -1, 1)), ("left-anterior-superior", (1, -1, 1))],
)
def test_other_spaces_become_lps(tmp_path: Path, space: str, signs: tuple[int, ...]) -> None:
    geometry = turned((0, 2, 1), (1, -1, 1))
    theirs = geometry.affine.copy()
    theirs[:3] *= np.array(signs)[:, None]
    origin = f"({','.join(map(str, theirs[:3, 3]))})"
    fields = {"space": space, "space directions": " ".join(vectors(theirs)), "space origin": origin}
    header = read_nrrd_header(nrrd(tmp_path / "x.nrrd", HU, geometry, fields=fields))
    assert header.geometry == geometry
    assert header.geometry == by_simpleitk(tmp_path / "x.nrrd")


def test_units_become_millimetres(tmp_path: Path) -> None:
    geometry = axial(SHAPE, (0.3, 0.1, 0.1))
    header = read_nrrd_header(nrrd(tmp_path / "x.nrrd", HU, geometry, fields={"space units": '"cm" "cm" "cm"'}))
    assert header.geometry.spacing == pytest.approx((3.0, 1.0, 1.0))
    assert header.warnings == ("lengths are not in millimetres; they are converted to them",)


@pytest.mark.parametrize(
    "fields",
    [
        {"space": None, "space directions": None, "space origin": None, "spacings": "1.1 0.9 3"},
        {"space": None, "space dimension": "3"},
        {"space": "scanner-xyz"},
        {"space origin": None},
        {"space directions": "none none none", "spacings": "1.1 0.9 3"},
    ],
    ids=["spacings only", "no named space", "no space of the patient", "no origin", "no directions"],
)
def test_a_volume_without_a_place_has_the_size_of_its_voxels_alone(
    tmp_path: Path, fields: dict[str, str | None]
) -> None:
    header = read_nrrd_header(nrrd(tmp_path / "x.nrrd", HU, turned((2, 1, 0), (1, 1, 1)), fields=fields))
    assert not header.placed
    assert header.geometry.spacing == pytest.approx((3.0, 0.9, 1.1))
    assert "left and right are a guess" in header.warnings[-1]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"dimension": "2", "sizes": "4 15", "space directions": None, "kinds": None}, "must have 3 dimensions"),
        ({"dimension": "4", "sizes": "5 4 3 1", "kinds": "domain domain domain time"}, "must have 3 dimensions"),
        ({"kinds": "RGB-color domain domain"}, "must have 3 dimensions"),
        ({"sizes": "5 4"}, "dimension and sizes do not agree"),
        ({"sizes": "5 4 -3"}, "sizes are no numbers"),
        ({"sizes": "5 4 9999999"}, "sizes are no numbers"),
        ({"sizes": "20000 20000 20000"}, "MB of memory or more"),
        ({"type": "block"}, "its type is none of numbers"),
        ({"type": None}, "has no type"),
        ({"endian": None}, "has no endian"),
        ({"encoding": "hex"}, "encoding is not raw, gzip or bzip2"),
        ({"space directions": "(1,0,0) (0,1,0) (0,0,0)"}, "no possible voxel size"),
        ({"space directions": "(1,0,0) (1,0,0) (0,0,1)"}, "do not span a volume"),
        ({"space directions": "(1,0,0) (0,nan,0) (0,0,1)"}, "no three numbers"),
        ({"space directions": "(1,0,0) (0,1,0)"}, "do not agree"),
        ({"space origin": "(1e9,0,0)"}, "puts the volume 1e+06 m away"),
        ({"space directions": None}, "gives no voxel size"),
        ({"line skip": "3"}, "line skip is not read"),
        ({"byte skip": "-2"}, "byte skip is no number"),
        ({"space units": '"mm" "cm" "mm"'}, "different units"),
        ({"data file": "/etc/passwd"}, "one file in its own folder"),
        ({"data file": "../x.raw"}, "one file in its own folder"),
        ({"data file": "a/x.raw"}, "one file in its own folder"),
        ({"data file": "..\\x.raw"}, "one file in its own folder"),
        ({"data file": "LIST\nx1.raw\nx2.raw"}, "one file in its own folder"),
        ({"data file": "x%03d.raw 1 3 1"}, "one file in its own folder"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    tmp_path: Path, fields: dict[str, str | None], reason: str
) -> None:
    path = nrrd(tmp_path / "x.nrrd", HU, axial(SHAPE, (3, 1, 1)), fields={"content": "Jane Doe", **fields})
    with pytest.raises(SeriesError, match=r"^x\.nrrd: ") as caught:
        read_nrrd_header(path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(text in str(caught.value) for text in ("Jane", "passwd", "x1.raw"))


def test_files_of_a_path_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "secret.raw").write_bytes(HU.tobytes())
    for name in (str(tmp_path / "secret.raw"), "../secret.raw"):
        path = nrrd(tmp_path / "a" / "x.nhdr", HU, axial(SHAPE, (3, 1, 1)), fields={"data file": name})
        with pytest.raises(SeriesError, match="one file in its own folder"):
            read_nrrd_header(path)


def test_a_detached_header_names_the_file_beside_it(tmp_path: Path) -> None:
    assert read_nrrd_header(nhdr(tmp_path / "x.nhdr", HU, axial(SHAPE, (3, 1, 1)))).data_file == "x.raw"
    path = nrrd(tmp_path / "y.nhdr", HU, axial(SHAPE, (3, 1, 1)), fields={"datafile": "./my y.raw"})
    assert read_nrrd_header(path).data_file == "my y.raw"


def test_line_ends_comments_keys_and_case_of_other_writers_are_read(tmp_path: Path) -> None:
    geometry = axial(SHAPE, (3, 1, 1))
    path = nrrd(tmp_path / "x.nrrd", HU, geometry, keys={"DICOM:0010,0010": "Doe: Jane", "a": "b"})
    head, blank, body = path.read_bytes().partition(b"\n\n")
    assert blank
    path.write_bytes(head.replace(b"\n", b"\r\n").replace(b"sizes:", b"Sizes:") + b"\r\n\r\n" + body)
    header = read_nrrd_header(path)
    assert header.geometry == geometry
    assert path.read_bytes()[header.start :] == HU.tobytes()


def test_a_header_is_known_by_its_content(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "0123abcd", HU, axial(SHAPE, (3, 1, 1)))
    assert is_nrrd(path)
    (tmp_path / "x.nrrd").write_bytes(b"no volume")
    assert not is_nrrd(tmp_path / "x.nrrd")


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "x.nrrd", HU, axial(SHAPE, (3, 1, 1)))
    path.write_bytes(path.read_bytes().partition(b"\n\n")[0])
    with pytest.raises(SeriesError, match="it has no end"):
        read_nrrd_header(path)
    path.write_bytes(b"NRRD0004\n" + b"# x" * 2_000_000)
    with pytest.raises(SeriesError, match="the header is longer"):
        read_nrrd_header(path)


def test_parts_lie_within_the_whole() -> None:
    part, place = part_of(HU, turned((1, 0, 2), (1, -1, 1)), [slice(1, 3), slice(0, 2), slice(2, 5)])
    assert part.shape == place.shape == (2, 2, 3)
    assert to_axial(place)[0].spacing == pytest.approx(to_axial(turned((1, 0, 2), (1, -1, 1)))[0].spacing)
