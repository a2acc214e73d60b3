import math

import numpy as np
import pytest
from scipy import ndimage

from boneseg.augment.paper import Plan
from boneseg.augment.paper_geometry import (
    Affine,
    CropAndPad,
    Elastic,
    LocalAffine,
    Perspective,
    triangles,
    warp,
)
from tests.augment.pictures import random_slice


def test_flips_mirror_and_an_empty_plan_changes_nothing() -> None:
    image, label = random_slice(20, 30)
    for horizontal, vertical in ((False, False), (True, False), (False, True), (True, True)):
        plan = Plan(horizontal, vertical, None, None, ())
        axes = [axis for axis, mirrored in enumerate((vertical, horizontal)) if mirrored]
        for changed, original in zip(plan.apply(image, label), (image, label), strict=True):
            np.testing.assert_array_equal(changed, np.flip(original, axes))


def test_crop_and_pad_cut_off_or_add_and_resize() -> None:
    """Two of 40 columns cut off the left, four added to the right, against slicing and linear interpolation."""
    image, label = random_slice(40, 40)
    change = CropAndPad((-0.05, 0.1, 0.0, 0.0))
    moved, labels = warp(image, label, change.matrix(40, 40))
    wider = np.pad(image[:, 2:], ((0, 0), (0, 4)))
    places = (np.arange(40) + 0.5) * 42 / 40 - 0.5
    expected = np.stack([np.interp(places, np.arange(42), row) for row in wider])
    np.testing.assert_allclose(moved[:, 1:-1], expected[:, 1:-1], atol=1e-4)
    np.testing.assert_array_equal(labels[:, :-4], label[:, 2:][:, np.rint(places).astype(int)[:-4]])
    assert not labels[:, -3:].any()


def test_affine_turns_scales_and_shears_about_the_middle() -> None:
    image, label = random_slice(41, 41)
    turned, turned_label = warp(image, label, Affine((1, 1), 90, 0).matrix(41, 41))
    np.testing.assert_allclose(turned, np.rot90(image, -1), atol=1e-4)
    np.testing.assert_array_equal(turned_label, np.rot90(label, -1))

    dot = np.zeros((101, 101), np.float32)
    dot[60, 70] = 1  # 20 to the right of the middle and 10 below it
    dot = ndimage.gaussian_filter(dot, 2)
    for change, x, y in (
        (Affine((1.2, 0.8), 0, 0), 24, 8),
        (Affine((1, 1), 0, 16), 20 + 10 * math.tan(math.radians(16)), 10),
        (Affine((1, 1), 30, 0), 20 * math.cos(math.pi / 6) - 5, 10 + 10 * math.cos(math.pi / 6)),
    ):
        moved, _ = warp(dot, np.zeros((101, 101), np.uint8), change.matrix(101, 101))
        np.testing.assert_allclose(ndimage.center_of_mass(moved), (50 + y, 50 + x), atol=0.02)


def test_crop_and_pad_come_before_the_affine_change_and_need_no_square() -> None:
    image = np.zeros((60, 100), np.float32)
    image[20, 30] = 1
    image = ndimage.gaussian_filter(image, 2)
    plan = Plan(True, False, CropAndPad((0.1, 0.0, 0.0, 0.1)), Affine((1, 0.8), 40, 0), ())
    x, y = 99 - 30, 20  # mirrored
    x, y = (x + 0.5 + 10) / 1.1 - 0.5, (y + 0.5) / 1.1 - 0.5
    x, y = x - 49.5, 0.8 * (y - 29.5)
    angle = math.radians(40)
    expected = (29.5 + x * math.sin(angle) + y * math.cos(angle), 49.5 + x * math.cos(angle) - y * math.sin(angle))
    moved, _ = plan.apply(image, np.zeros((60, 100), np.uint8))
    np.testing.assert_allclose(ndimage.center_of_mass(moved), expected, atol=0.02)


def test_perspective_stretches_a_quadrangle_to_the_whole() -> None:
    rows, columns = np.mgrid[:60, :80].astype(np.float32) / 100
    corners = ((0.1, 0.05), (0.2, 0.15), (0.0, 0.1), (0.05, 0.2))
    change = Perspective(corners)
    for plane, name in ((columns, 0), (rows, 1)):
        moved, _ = change.apply(plane, np.zeros((60, 80), np.uint8))
        last = (80, 60)[name] - 1
        for (row, column), corner, far in zip(
            ((0, 0), (0, -1), (-1, -1), (-1, 0)), corners, ((0, 0), (1, 0), (1, 1), (0, 1)), strict=True
        ):
            inside = abs(far[name] - corner[name]) * last
            assert 100 * moved[row, column] == pytest.approx(inside, abs=0.05)


def test_elastic_moves_no_pixel_further_than_its_strength() -> None:
    columns = np.tile(np.arange(64, dtype=np.float32) / 64, (64, 1))
    moved, _ = Elastic(2.5, 1).apply(columns, np.zeros((64, 64), np.uint8))
    way = 64 * (moved - columns)[4:-4, 4:-4]
    assert 2.3 < np.abs(way).max() <= 2.51
    assert way.std() == pytest.approx(2.5 / math.sqrt(3), rel=0.05)


def test_local_affine_is_linear_on_each_triangle_of_its_grid() -> None:
    points = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    field = triangles(points, 31, 31)  # ten pixels a cell
    np.testing.assert_allclose(field[::10, ::10], points, atol=1e-5)
    for row, column in np.ndindex(31, 31):
        i, j = min(row // 10, 2), min(column // 10, 2)
        v, u = row / 10 - i, column / 10 - j
        near, far = (points[i, j], u, v), (points[i + 1, j + 1], 1 - v, 1 - u)
        corner, along_row, along_column = near if u + v <= 1 else far
        expected = corner + along_row * (points[i, j + 1] - corner) + along_column * (points[i + 1, j] - corner)
        assert field[row, column] == pytest.approx(expected, abs=1e-5)


def test_local_affine_moves_as_far_as_its_scale() -> None:
    columns = np.tile(np.arange(64, dtype=np.float32) / 64, (64, 1))
    ways = []
    for seed in range(200):
        moved, _ = LocalAffine(0.03, seed).apply(columns, np.zeros((64, 64), np.uint8))
        ways.append((moved - columns)[21, 21])  # a point of the grid
    assert np.std(ways) == pytest.approx(0.03, rel=0.2)
