from pathlib import Path

import pytest

from boneseg.dataset.shards import load_dataset
from boneseg.models.card import EpochRecord
from boneseg.settings.schema import RunSettings, TrainSettings, TuneSettings
from boneseg.storage.workspace import Workspace
from boneseg.train.task import TrainingStopped
from boneseg.tune.conductor import Order
from boneseg.tune.cost import Cost
from boneseg.tune.sweep import Sweep
from boneseg.tune.trial import is_want_of_memory, train_trial
from tests.train.data import put_dataset


def test_a_trial_of_a_population_goes_on_from_the_state_of_another_on_any_machine(
    workspace: Workspace, tmp_path: Path
) -> None:
    dataset = load_dataset(workspace, put_dataset(workspace))
    train = TrainSettings(crop=64, batch_size=2, steps_per_epoch=2, augmentation="none", learning_rate=0.002)
    base = RunSettings(train=train, tune=TuneSettings(epochs=3))
    choices = [{"model.encoder": "mobilenet_v2", "train.learning_rate": rate} for rate in (0.002, 0.004)]
    sweep = Sweep("s", workspace, dataset, base)
    donor = sweep.run_of(choices[0])
    assert donor is not None
    told: list[EpochRecord] = []

    def stop_after_two(record: EpochRecord, cost: Cost) -> None:
        told.append(record)
        if record.epoch == 2:
            raise TrainingStopped

    with pytest.raises(TrainingStopped):
        train_trial(sweep, Order(1, choices[0], donor.default_name(), 0, None), stop_after_two)

    heard: list[EpochRecord] = []
    elsewhere = Sweep("s", Workspace(workspace.store, tmp_path / "elsewhere"), dataset, base)
    sources = (("gone", "0"), (donor.default_name(), donor.identity))
    order = Order(2, choices[1], "s-2-1", 0, None, sources)
    train_trial(elsewhere, order, lambda record, cost: heard.append(record))
    assert heard[:2] == told
    assert [record.epoch for record in heard] == [1, 2, 3]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("shapes do not fit"), False),
    ],
)
def test_want_of_memory_is_known_by_its_words(error: Exception, expected: bool) -> None:
    assert is_want_of_memory(error) is expected
