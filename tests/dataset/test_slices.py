import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from boneseg.dataset.manifest import ShardRecord
from boneseg.dataset.shards import save_shard
from boneseg.dataset.slices import Planes, SliceDataset, TrainingBatches, ValidationBatches, ahead
from boneseg.errors import DataError
from boneseg.geometry import axial
from boneseg.hu import normalise
from boneseg.scheme import BUILT_IN, Labelling
from boneseg.scheme.labelling import THREE_CLASSES
from boneseg.settings.schema import PreprocessSettings, TrainSettings
from boneseg.storage.catalogue import FileKind, GeometryRecord, SeriesRow
from boneseg.storage.workspace import Workspace

WINDOW = PreprocessSettings(spacing_mm=None)
PLAIN = TrainSettings(crop=64, batch_size=4, augmentation="none", loader_threads=0)


def shard(
    workspace: Workspace,
    name: str,
    shape: tuple[int, int, int],
    bone_slices: int,
    value: int = 2,
    labelling: Labelling = THREE_CLASSES,
) -> ShardRecord:
    """Save a shard with bone in the last ``bone_slices`` slices; HU tell slice, row and column."""
    hu = np.random.default_rng(len(name)).integers(-400, 1200, shape).astype(np.int16)
    label = np.ones(shape, dtype=np.uint8)
    if bone_slices:
        label[-bone_slices:, 5:15, 5:15] = value
    geometry = axial(shape, (3.0, 1.0, 1.0))
    row = SeriesRow(
        series=name,
        source=name,
        kind=FileKind.NIFTI,
        objects=(),
        patient=name,
        study=name,
        modality="CT",
        geometry=GeometryRecord.of(geometry),
        hu_range=(0, 1),
        label=None,
    )
    return save_shard(workspace, name, row, hu, label, geometry, labelling=labelling)


@pytest.fixture
def slices(workspace: Workspace) -> SliceDataset:
    shapes = {"a": ((6, 100, 120), 3), "bb": ((4, 40, 50), 2), "ccc": ((5, 100, 120), 0)}
    records = [shard(workspace, name, shape, bone) for name, (shape, bone) in shapes.items()]
    return SliceDataset(workspace, records, WINDOW)


def test_slices_are_normalised_and_whole(slices: SliceDataset) -> None:
    image, label = slices[7]
    assert len(slices) == 15
    assert image.shape == (1, 40, 50)
    assert label.shape == (40, 50)
    hu = np.random.default_rng(2).integers(-400, 1200, (4, 40, 50)).astype(np.int16)
    np.testing.assert_array_equal(image[0], normalise(hu[1], WINDOW.window))


def test_slices_are_resampled_with_their_labels(slices: SliceDataset, workspace: Workspace) -> None:
    halved = SliceDataset(workspace, slices.records, PreprocessSettings(spacing_mm=2.0))
    image, label = halved[3]
    assert image.shape == (1, 50, 60)
    assert label.shape == (50, 60)
    assert (label == 2).sum() == pytest.approx(25, abs=12)


def test_neighbours_are_channels_and_repeat_at_the_ends(slices: SliceDataset, workspace: Workspace) -> None:
    settings = PreprocessSettings(slices=3, slice_distance_mm=6.0, spacing_mm=None)
    stacked = SliceDataset(workspace, slices.records, settings)
    for index, expected in ((0, (0, 0, 2)), (3, (1, 3, 5)), (5, (3, 5, 5)), (6, (6, 6, 8))):
        image, label = stacked[index]
        np.testing.assert_array_equal(image, np.stack([slices[other][0][0] for other in expected]))
        np.testing.assert_array_equal(label, slices[index][1])
    batch = next(TrainingBatches(stacked, PLAIN).epoch(1))
    assert batch.image.shape == (4, 3, 64, 64)


def test_a_slab_is_the_mean_over_its_thickness(slices: SliceDataset) -> None:
    planes = [slices.planes(index).hu[0] for index in range(4)]
    np.testing.assert_allclose(slices.planes(2, slab_mm=9.0).hu[0], np.mean(planes[1:4], axis=0), atol=1e-3)
    np.testing.assert_array_equal(slices.planes(2, slab_mm=3.0).hu[0], planes[2])
    np.testing.assert_allclose(slices.planes(0, slab_mm=9.0).hu[0], np.mean(planes[:2], axis=0), atol=1e-3)


def test_every_slice_is_resized_where_a_size_is_set(slices: SliceDataset, workspace: Workspace) -> None:
    squares = SliceDataset(workspace, slices.records, PreprocessSettings(size=64))
    for index in (0, 7):
        image, label = squares[index]
        assert image.shape == (1, 64, 64)
        assert label.shape == (64, 64)
    area = 1.0 * 100 * 1.0 * 120 / 64**2
    assert squares.planes(0).pixel_mm == pytest.approx(area**0.5)


def test_an_empty_split_is_refused_with_the_fix(workspace: Workspace) -> None:
    with pytest.raises(DataError, match="add patients"):
        SliceDataset(workspace, [], WINDOW)


def test_a_torch_loader_with_processes_can_read_the_slices(slices: SliceDataset) -> None:
    loader = DataLoader(slices, batch_size=None, num_workers=1, multiprocessing_context="fork")
    images = [np.asarray(image) for image, _ in loader]
    np.testing.assert_array_equal(images[7], slices[7][0])


def test_batches_have_the_shapes_and_types_that_training_expects(slices: SliceDataset) -> None:
    batches = list(TrainingBatches(slices, PLAIN).epoch(1))
    assert len(batches) == 4  # 15 slices in fours
    for batch in batches:
        assert batch.image.shape == (4, 1, 64, 64)
        assert batch.label.shape == (4, 64, 64)
        assert (batch.image.dtype, batch.label.dtype) == (torch.float32, torch.uint8)
        assert batch.image.min() >= 0
        assert batch.image.max() <= 1


def test_small_slices_are_padded_with_air_and_background(slices: SliceDataset, workspace: Workspace) -> None:
    small = SliceDataset(workspace, slices.records[1:2], WINDOW)
    batch = next(TrainingBatches(small, PLAIN).epoch(1))
    outside = batch.label == 0
    assert outside.sum() == 4 * (64 * 64 - 40 * 50)
    assert (batch.image[:, 0][outside] == 0).all()


@pytest.mark.parametrize("augmentation", ["none", "ct", "paper"])
@pytest.mark.parametrize("threads", [1, 3])
def test_batches_do_not_depend_on_threads(slices: SliceDataset, threads: int, augmentation: str) -> None:
    settings = PLAIN.model_copy(update={"augmentation": augmentation, "seed": 3})
    threaded = settings.model_copy(update={"loader_threads": threads})
    alone = list(TrainingBatches(slices, settings).epoch(2))
    together = list(TrainingBatches(slices, threaded).epoch(2))
    assert len(alone) == len(together)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.label, other.label)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_workers_share_the_crops_of_each_step(slices: SliceDataset, world: int) -> None:
    settings = PLAIN.model_copy(update={"steps_per_epoch": 3, "augmentation": "ct"})
    alone = list(TrainingBatches(slices, settings).epoch(1))
    ranks = [list(TrainingBatches(slices, settings, rank, world).epoch(1)) for rank in range(world)]
    sizes = [len(batches[0].image) for batches in ranks]
    assert (sum(sizes), max(sizes) - min(sizes)) == (settings.batch_size, int(settings.batch_size % world > 0))
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(whole.image, torch.cat([part.image for part in parts]))
        assert torch.equal(whole.label, torch.cat([part.label for part in parts]))


def test_epochs_and_seeds_differ_and_repeat(slices: SliceDataset) -> None:
    batches = TrainingBatches(slices, PLAIN)
    first, second, again = (next(batches.epoch(number)).image for number in (1, 2, 1))
    other = next(TrainingBatches(slices, PLAIN.model_copy(update={"seed": 1})).epoch(1)).image
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_crops_near_bone_is_kept(slices: SliceDataset, share: float) -> None:
    settings = PLAIN.model_copy(update={"bone_share": share, "steps_per_epoch": 50, "crop": 32})
    labels = torch.cat([batch.label for batch in TrainingBatches(slices, settings).epoch(1)])
    with_bone = float((labels == 2).flatten(1).any(1).float().mean())
    # Slices with bone are a third of all, and a crop at random sometimes meets it too.
    assert share <= with_bone <= share + (1 - share) * 0.34
    if share == 1.0:
        assert with_bone == 1.0


@pytest.mark.parametrize(("share", "told"), [(0.8, 0.8), (0.0, 0.25), (0.2, 0.25)])
def test_slices_whose_bones_are_told_apart_come_first(workspace: Workspace, share: float, told: float) -> None:
    """Three of four series say only that it is one of two hips."""
    pelvis = BUILT_IN["pelvis"]
    labelling = Labelling(pelvis, ((2, 3),))
    values = {"a": 2, "bb": pelvis.size, "ccc": pelvis.size, "dddd": pelvis.size}
    records = [shard(workspace, name, (4, 40, 50), 2, value, labelling) for name, value in values.items()]
    slices = SliceDataset(workspace, records, WINDOW, labelling)
    settings = PLAIN.model_copy(update={"bone_share": 1.0, "told_share": share, "steps_per_epoch": 20, "crop": 32})
    labels = torch.cat([batch.label for batch in TrainingBatches(slices, settings).epoch(1)])
    assert int((labels == 2).flatten(1).any(1).sum()) == told * len(labels)
    assert bool(((labels == 2) | (labels == pelvis.size)).flatten(1).any(1).all())


class Spy(SliceDataset):
    """Notes which slices are asked for."""

    seen: tuple[int, ...] = ()

    def planes(self, index: int, slab_mm: float = 0.0) -> Planes:
        self.seen += (int(index),)
        return super().planes(index, slab_mm)


def test_every_slice_is_seen_in_an_epoch_without_preference_for_bone(
    slices: SliceDataset, workspace: Workspace
) -> None:
    spy = Spy(workspace, slices.records, WINDOW)
    list(TrainingBatches(spy, PLAIN.model_copy(update={"bone_share": 0.0, "batch_size": 5})).epoch(1))
    assert sorted(spy.seen) == list(range(15))


def test_validation_sees_every_slice_once_and_no_pixel_more(slices: SliceDataset) -> None:
    batches = list(ValidationBatches(slices, batch_size=4))
    assert [tuple(batch.image.shape) for batch in batches] == [
        (4, 1, 100, 120),
        (2, 1, 100, 120),
        (4, 1, 40, 50),
        (4, 1, 100, 120),
        (1, 1, 100, 120),
    ]
    counted = sum(np.bincount(batch.label.flatten().numpy(), minlength=3) for batch in batches)
    expected = np.sum([count for record in slices.records for count in record.class_counts], axis=0)
    np.testing.assert_array_equal(counted, expected)


def test_a_limit_spreads_validation_evenly_and_ranks_share_it(slices: SliceDataset) -> None:
    limited = list(ValidationBatches(slices, batch_size=1, limit=5))
    assert len(limited) == 5
    assert {tuple(batch.image.shape[2:]) for batch in limited} == {(100, 120), (40, 50)}
    parts = [ValidationBatches(slices, batch_size=2, rank=rank, world=3) for rank in range(3)]
    assert sum(len(batch.image) for part in parts for batch in part) == 15


def test_a_failing_batch_reaches_the_caller_and_threads_end() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise DataError("shard is gone")
        return step

    before = threading.active_count()
    with pytest.raises(DataError, match="gone"):
        list(ahead(make, 10, threads=2))
    stopped = ahead(lambda step: step, 1000, threads=2)
    assert next(stopped) == 0
    stopped.close()
    assert threading.active_count() == before


def test_a_damaged_cache_file_is_fetched_again(slices: SliceDataset, workspace: Workspace) -> None:
    expected = slices[0][0]
    for path in Path(workspace.cache).rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:200])
    again = SliceDataset(workspace, slices.records, WINDOW)
    np.testing.assert_array_equal(again[0][0], expected)
