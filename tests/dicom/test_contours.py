"""Contours become masks: exactly where they were traced from one, and as an independent rasteriser has it elsewhere."""

import math
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from boneseg.dicom.contour_slices import drawn_slices, planes_of
from boneseg.dicom.contours import Region, read_structures
from boneseg.dicom.polygons import fill
from boneseg.errors import BonesegError, LabelError
from boneseg.geometry import Geometry, axial
from tests.dicom.contour_files import contours_of, halfway, rtstruct, through_centres

SHAPE = (9, 40, 44)


def blobs(seed: int, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.bool_]:
    """Return something with islands, holes and islands in holes on every slice."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), (1, 2, 2))
    mask = np.asarray(noise > 0)
    mask[:, 0] = mask[:, -1] = mask[:, :, 0] = mask[:, :, -1] = False
    return mask


def drawn(contours: list[NDArray[np.float64]], geometry: Geometry) -> NDArray[np.bool_]:
    region = Region(1, "bone", "", False, tuple(contours), "")
    volume = np.zeros(geometry.shape, dtype=bool)
    for number, patch in drawn_slices(planes_of(region, geometry), geometry).items():
        volume[number][patch.place] = patch.mask
    return volume


def turned(geometry: Geometry, degrees: float, tilt: float = 0.0) -> Geometry:
    """Turn a geometry about an oblique axis, and let its slices be stacked at a tilt."""
    axis = np.array([1.0, 2.0, 0.5]) / math.sqrt(5.25)
    skew = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = math.radians(degrees)
    rotation = np.eye(3) + math.sin(angle) * skew + (1 - math.cos(angle)) * skew @ skew
    affine = geometry.affine.copy()
    affine[:3, 0] += math.tan(math.radians(tilt)) * np.linalg.norm(affine[:3, 0]) * np.array([0, 1, 0])
    affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = (-120.5, 80.25, 33)
    return Geometry(geometry.shape, affine)


@pytest.mark.parametrize("trace", [halfway, through_centres])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("degrees", "tilt"), [(0, 0), (35, 0), (90, 0), (0, 15)])
def test_contours_of_a_mask_give_it_back(trace, seed: int, degrees: float, tilt: float) -> None:  # noqa: ANN001
    geometry = turned(axial(SHAPE, (2.5, 0.8, 0.7)), degrees, tilt)
    mask = blobs(seed)
    np.testing.assert_array_equal(drawn(contours_of(mask, geometry, trace), geometry), mask)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 45), st.floats(-5, 45)), min_size=3, max_size=12))
def test_a_polygon_is_filled_as_matplotlib_fills_it(corners: list[tuple[float, float]]) -> None:
    """Matplotlib counts how often a polygon winds around a point; odd is inside, for simple ones both are the same."""
    centre = np.mean(corners, axis=0)
    found = np.unique(np.array(corners), axis=0)
    order = np.argsort(np.arctan2(*(found - centre).T))  # around their centre: no edge crosses another
    polygon = found[order]
    patch = fill([polygon], 40, 42)
    mask = np.zeros((40, 42), dtype=bool)
    if patch is not None:
        mask[patch.place] = patch.mask
    grid = np.stack(np.meshgrid(np.arange(40.0), np.arange(42.0), indexing="ij"), axis=-1).reshape(-1, 2)
    if len(polygon) < 3:
        return
    closed = Outline(np.vstack([polygon, polygon[:1]]))
    inside = closed.contains_points(grid).reshape(40, 42)
    following = np.roll(polygon, -1, axis=0)
    off = np.full(len(grid), np.inf)
    for start, end in zip(polygon, following, strict=True):
        along = end - start
        length = max(float(along @ along), 1e-12)
        share = np.clip((grid - start) @ along / length, 0, 1)
        off = np.minimum(off, np.linalg.norm(grid - start - share[:, None] * along, axis=1))
    clear = (off > 0.02).reshape(40, 42)
    np.testing.assert_array_equal(mask[clear], inside[clear])


def test_a_hole_by_a_keyhole_is_a_hole() -> None:
    """DICOM's own way to draw a hole: one contour that goes in by a channel and out by it again (PS3.3 C.8.8.6.3)."""
    outer = [(2, 2), (2, 30), (30, 30), (30, 16.5)]
    inner = [(20.5, 16.5), (20.5, 10.5), (10.5, 10.5), (10.5, 20.5), (20.5, 20.5), (20.5, 16.5)]
    polygon = np.array([*outer, *inner, (30, 16.5), (30, 2)], dtype=float)
    patch = fill([polygon], 40, 40)
    assert patch is not None
    mask = np.zeros((40, 40), dtype=bool)
    mask[patch.place] = patch.mask
    expected = np.zeros((40, 40), dtype=bool)
    expected[2:31, 2:31] = True
    expected[11:21, 11:21] = False
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("points", [[], [(3, 3)], [(3, 3), (3, 9)], [(3, 3)] * 5, [(1, 1), (1, 1), (4, 4)]])
def test_what_encloses_nothing_is_no_more_than_its_line(points: list[tuple[float, float]]) -> None:
    patch = fill([np.array(points, dtype=float).reshape(-1, 2)], 20, 20)
    assert patch is None or patch.mask.sum() <= 7


def ball(shape: tuple[int, int, int], spacing: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    middle = [(size - 1) / 2 for size in shape]
    distance = sum(((grid - at) * step) ** 2 for grid, at, step in zip((z, y, x), middle, spacing, strict=True))
    return np.asarray(distance <= radius**2)


@pytest.mark.parametrize("step", [2, 3])
def test_contours_on_every_nth_slice_are_completed_by_shape(step: int) -> None:
    shape, spacing = (31, 64, 64), (1.0, 1.0, 1.0)
    geometry, mask = axial(shape, spacing), ball((31, 64, 64), spacing, 13.0)
    found = drawn(contours_of(mask, geometry, step=step), geometry)
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.97
    np.testing.assert_array_equal(found[::step], mask[::step])


def test_planes_between_slices_are_met_by_shape() -> None:
    """The same ball, drawn on planes half a slice beside those of the series."""
    shape, spacing = (30, 64, 64), (1.0, 1.0, 1.0)
    here, mask = axial(shape, spacing), ball(shape, spacing, 13.0)
    affine = here.affine.copy()
    affine[2, 3] -= 0.5
    there = Geometry((31, 64, 64), affine)
    contours = contours_of(ball((31, 64, 64), spacing, 13.0), there)
    found = drawn(contours, here)
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.98


def test_a_gap_between_two_parts_stays_a_gap() -> None:
    geometry = axial((20, 32, 32), (1.0, 1.0, 1.0))
    mask = np.zeros((20, 32, 32), dtype=bool)
    mask[2:6, 5:15, 5:15] = mask[12:16, 5:15, 5:15] = True
    np.testing.assert_array_equal(drawn(contours_of(mask, geometry), geometry), mask)


def test_contours_across_the_slices_are_refused() -> None:
    geometry = axial((20, 32, 32), (2.0, 1.0, 1.0))
    square = np.array([[4, 5, 5], [9, 5, 5], [9, 5, 15], [4, 5, 15]], dtype=float)
    with pytest.raises(LabelError, match=r"region 1 lie at 90 degrees to the slices.*draw them on its slices"):
        drawn([geometry.to_patient(square)], geometry)


def test_regions_names_types_and_references(tmp_path: Path) -> None:
    geometry = axial(SHAPE, (2.0, 1.0, 1.0))
    contours = contours_of(blobs(0), geometry)
    path = rtstruct(
        tmp_path / "rs.dcm", {"Femur L": contours, "x": contours[:1], "PTV": []}, kinds={"x": "EXTERNAL"}, frame="1.2.3"
    )
    found = read_structures(path)
    assert found.drawn == (1, 2)
    assert {number: region.name for number, region in found.regions.items()} == {1: "Femur L", 2: "x", 3: "PTV"}
    assert found.regions[2].code == "EXTERNAL"
    assert found.references.frame_of_reference == "1.2.3"
    assert len(found.regions[1].contours) == len(contours)
    np.testing.assert_allclose(found.regions[1].contours[0], contours[0], atol=1e-5)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("number twice", "describes region 1 twice"),
        ("unknown region", "contours of region 9, which it does not describe"),
        ("half a point", "where it says"),
        ("words", "no number"),
        ("far away", "farther away"),
        ("no regions", "no StructureSetROISequence"),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path: Path, fault: str, told: str) -> None:
    path = rtstruct(tmp_path / "rs.dcm", {"a": contours_of(blobs(0), axial(SHAPE, (2.0, 1.0, 1.0))), "b": []})
    data = pydicom.dcmread(path)
    contour = data.ROIContourSequence[0].ContourSequence[0]
    if fault == "number twice":
        data.StructureSetROISequence[1].ROINumber = 1
    elif fault == "unknown region":
        data.ROIContourSequence[0].ReferencedROINumber = 9
    elif fault == "half a point":
        contour.ContourData = list(contour.ContourData)[:-1]
    elif fault == "words":
        contour["ContourData"]._value = ["1", "a", "2"] * contour.NumberOfContourPoints
    elif fault == "far away":
        contour.ContourData = [1e9, *list(contour.ContourData)[1:]]
    else:
        del data.StructureSetROISequence
    data.save_as(path)
    with pytest.raises(LabelError, match=told):
        read_structures(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "rtstruct"
    good = folder / "good.dcm"
    if not good.is_file():
        rtstruct(good, {"femur": contours_of(blobs(0, (3, 16, 16)), axial((3, 16, 16), (2.0, 1.0, 1.0)))})
    content = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(132, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(132, len(content))) :]
    path = folder / "bad.dcm"
    path.write_bytes(content)
    with suppress(BonesegError):
        found = read_structures(path)
        found.content()
        found.outermost()
