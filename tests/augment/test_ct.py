import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from boneseg.augment import ct
from boneseg.hu import AIR_HU, SCANNER_HIGHEST_HU
from boneseg.scheme import Labelling
from boneseg.settings.schema import PreprocessSettings

SIZE = 128
SEEDS = range(60)


def body(slices: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return HU and label of a disc of tissue in air that holds a bone: cortex and marrow."""
    rows, columns = np.ogrid[:SIZE, :SIZE]
    inside = np.hypot(rows - 60, columns - 64) < 50
    bone = np.hypot(rows - 50, columns - 70) < 18
    marrow = np.hypot(rows - 50, columns - 70) < 13
    hu = np.select([marrow, bone, inside], [150.0, 900.0, 40.0], -1024.0).astype(np.float32)
    label = np.select([bone, inside], [2, 1], 0).astype(np.uint8)
    return np.repeat(hu[None], slices, axis=0), label


def applied(operation: ct.Operation, seed: int, pixel_mm: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    hu, label = body()
    operation(hu, label, pixel_mm, np.random.default_rng(seed))
    return hu, label


KEEPING_LABELS = [operation for _, operation in ct.OPERATIONS if operation is not ct.field_of_view]


@pytest.mark.parametrize("operation", KEEPING_LABELS)
def test_no_operation_but_the_field_of_view_touches_the_label(operation: ct.Operation) -> None:
    for seed in SEEDS:
        np.testing.assert_array_equal(applied(operation, seed)[1], body()[1])


def test_outside_the_field_of_view_are_air_and_background() -> None:
    cut_off = 0
    for seed in SEEDS:
        hu, label = applied(ct.field_of_view, seed)
        lost = (label == 0) & (body()[1] > 0)
        cut_off += bool(lost.any())
        assert (hu[:, lost] == AIR_HU).all()
        np.testing.assert_array_equal(hu[:, label > 0], body()[0][:, label > 0])
    assert cut_off > 10


def test_noise_has_the_stated_strength_in_hu_and_no_offset() -> None:
    levels = []
    for seed in SEEDS:
        difference = applied(ct.noise, seed)[0] - body()[0]
        levels.append(difference.std())
        assert abs(difference.mean()) < 0.05 * difference.std() + 0.5
    assert min(levels) >= ct.NOISE_HU[0] * 0.95
    assert max(levels) <= ct.NOISE_HU[1] * 1.05
    assert max(levels) > 4 * min(levels)


def test_a_coarser_scan_keeps_the_mean_and_loses_detail() -> None:
    for seed in SEEDS:
        hu = applied(ct.resolution, seed)[0]
        assert hu.mean() == pytest.approx(body()[0].mean(), abs=12)
        assert hu.max() <= body()[0].max() + 1e-3
        assert np.abs(np.diff(hu, axis=1)).max() <= np.abs(np.diff(body()[0], axis=1)).max() + 1e-3


def test_a_scan_that_is_coarse_already_stays_as_it_is() -> None:
    np.testing.assert_array_equal(applied(ct.resolution, 1, pixel_mm=3.0)[0], body()[0])


def test_a_softer_kernel_is_a_gaussian_and_a_sharper_one_overshoots() -> None:
    softer = sharper = 0
    for seed in SEEDS:
        hu = applied(ct.kernel, seed)[0]
        if hu.max() > 901:
            sharper += 1
            continue
        softer += 1
        sigma = np.random.default_rng(seed)
        sigma.random()
        expected = gaussian_filter(body()[0][0], sigma.uniform(0.3, 1.0), mode="mirror", truncate=4)
        np.testing.assert_allclose(hu[0], expected, atol=6)
    assert softer > 15
    assert sharper > 15


def test_calibration_is_a_straight_line_within_its_limits() -> None:
    for seed in SEEDS:
        slope, offset = np.polyfit(body()[0].ravel(), applied(ct.calibration, seed)[0].ravel(), 1)
        assert 0.959 < slope < 1.041
        assert abs(offset) < 20.1


def test_density_changes_bone_alone() -> None:
    label = body()[1]
    cortex = []
    for seed in SEEDS:
        hu = applied(ct.density, seed)[0]
        np.testing.assert_array_equal(hu[:, label < 2], body()[0][:, label < 2])
        cortex.append(hu[0][body()[0][0] == 900].mean())
    assert min(cortex) == pytest.approx(50 + 850 * 0.6, rel=0.1)
    assert max(cortex) == pytest.approx(50 + 850 * 1.25, rel=0.1)


def test_contrast_fills_soft_tissue_with_at_most_450_hu_and_spares_bone() -> None:
    label, filled = body()[1], []
    for seed in SEEDS:
        hu = applied(ct.contrast, seed)[0]
        np.testing.assert_array_equal(hu[:, label != 1], body()[0][:, label != 1])
        assert hu[:, label == 1].min() >= 40
        assert hu[:, label == 1].max() <= 450
        filled.append(hu[:, label == 1].max() > 110)
    assert np.mean(filled) > 0.95


def test_metal_lies_in_bone_and_its_streaks_fade() -> None:
    label = body()[1]
    for seed in SEEDS:
        hu = applied(ct.metal, seed)[0]
        assert (hu[:, label == 2] == SCANNER_HIGHEST_HU).any()
        np.testing.assert_array_equal(hu[:, label == 0], body()[0][:, label == 0])
        assert np.abs(hu - body()[0])[:, label == 1].max() <= 2 * 500


def test_a_couch_lies_in_air_below_the_middle() -> None:
    label, seen = body()[1], 0
    for seed in SEEDS:
        hu = applied(ct.couch, seed)[0]
        np.testing.assert_array_equal(hu[:, label > 0], body()[0][:, label > 0])
        changed = (hu != body()[0])[0]
        seen += bool(changed.any())
        assert ((hu[0][changed] >= -200) & (hu[0][changed] <= 400)).all()
    assert seen > 30


def test_an_image_without_bone_or_tissue_is_left_alone() -> None:
    hu, label = np.full((1, 64, 64), -1000, np.float32), np.zeros((64, 64), np.uint8)
    for operation in (ct.metal, ct.contrast, ct.density):
        changed = hu.copy()
        operation(changed, label, 1.0, np.random.default_rng(0))
        np.testing.assert_array_equal(changed, hu)


def test_image_and_label_move_together_by_the_stated_zoom() -> None:
    areas, mirrored = [], []
    for seed in range(200):
        _, label = body(1)
        bright, moved, zoom, _ = ct.move((label == 2)[None].astype(np.float32), label, 96, np.random.default_rng(seed))
        both = (bright[0] > 0.5) & (moved == 2)
        assert 2 * both.sum() / ((bright[0] > 0.5).sum() + (moved == 2).sum()) > 0.95
        areas.append((moved == 2).sum() / (label == 2).sum() / zoom**2)
        mirrored.append(np.argwhere(moved == 2)[:, 1].mean() < 47.5)
    assert min(areas) > 0.93
    assert max(areas) < 1.07
    assert 0.4 < np.mean(mirrored) < 0.6


def test_each_operation_happens_as_often_as_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = dict.fromkeys(range(len(ct.OPERATIONS)), 0)

    def note(number: int) -> ct.Operation:
        def operation(*_: object) -> None:
            seen[number] += 1

        return operation

    chances = [chance for chance, _ in ct.OPERATIONS]
    monkeypatch.setattr(ct, "OPERATIONS", tuple((chance, note(number)) for number, chance in enumerate(chances)))
    augmentation, draws = ct.CtAugmentation(32, PreprocessSettings(), Labelling()), 2000
    side = augmentation.window
    hu, label = np.zeros((1, side, side), np.float32), np.ones((side, side), np.uint8)
    for seed in range(draws):
        augmentation(hu, label, 1.0, seed)
    for number, chance in enumerate(chances):
        assert seen[number] / draws == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / draws))


def test_three_in_ten_crops_come_from_thick_slices() -> None:
    augmentation = ct.CtAugmentation(32, PreprocessSettings(), Labelling())
    slabs = np.array([augmentation.slab_mm(np.random.default_rng(seed)) for seed in range(2000)])
    assert (slabs > 0).mean() == pytest.approx(0.3, abs=0.05)
    assert slabs[slabs > 0].min() >= ct.SLAB_MM[0]
    assert slabs.max() <= ct.SLAB_MM[1]
