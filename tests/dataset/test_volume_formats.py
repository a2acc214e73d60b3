"""The same CT with the same label in each format becomes the same shard, voxel for voxel."""

from pathlib import Path

import numpy as np

from boneseg.dataset.shards import open_shard
from boneseg.settings.schema import PrepareSettings, SplitSettings
from boneseg.storage.workspace import Workspace
from tests.ct_files import place
from tests.dataset.test_prepare import folder, run
from tests.ingest.test_volume_formats import CT, HU, LABEL, LABELS


def test_every_format_makes_the_same_shard(workspace: Workspace, tmp_path: Path) -> None:
    formats = {name.replace(" ", "_"): name for name in LABELS}
    for number, (case, name) in enumerate(sorted(formats.items())):
        where, grid = tmp_path / "data" / case, place(at=(0, 0, 500 * number))
        where.mkdir(parents=True)
        list(CT.values())[number % len(CT)](where, grid)
        LABELS[name](where, grid)
    # The same pictures are one patient, who can only be trained on.
    result, dataset = run(workspace, tmp_path / "data", PrepareSettings(parallel=1, splits=SplitSettings(test=0)))
    assert [problem for problem in result.problems if problem.fatal] == []
    assert {folder(workspace, entry.shard.source) for entry in dataset.entries} == formats.keys()
    for entry in dataset.entries:
        shard = open_shard(workspace, entry.shard)
        np.testing.assert_array_equal(shard.image, HU)
        np.testing.assert_array_equal(shard.label, LABEL)
        assert not entry.shard.outline_computed
