"""A series that costs its process is named once the others are measured, and no evaluation without it is kept."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from boneseg.dataset.manifest import ShardRecord
from boneseg.dataset.prepare import prepare
from boneseg.errors import DataError
from boneseg.evaluate.evaluate import evaluate
from boneseg.evaluate.measure_series import Measured
from boneseg.ingest.pull import pull
from boneseg.models.checkpoint import upload_model
from boneseg.pool import Need, Outcome
from boneseg.settings.schema import EvaluateSettings, PrepareSettings, PullSettings, SplitSettings, StoreSettings
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace
from tests.dataset.test_prepare import case


class FirstIsLost:
    """A pool in which the first series kills its process; the others are done."""

    def map(
        self,
        work: Callable[[ShardRecord], Measured],
        items: Sequence[ShardRecord],
        need: Callable[[ShardRecord], Need],
    ) -> Iterator[Outcome[ShardRecord, Measured]]:
        yield Outcome(items[0], lost="its process was killed twice, on two nodes")
        for item in items[1:]:
            yield Outcome(item, work(item))


def test_a_lost_series_is_named_and_no_evaluation_without_it_is_kept(
    workspace: Workspace,
    tmp_path: Path,
    model_folder: Path,
    settings: EvaluateSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for seed in range(4):
        case(tmp_path / "data" / f"case{seed}", seed)
    upload_folder(workspace.store, tmp_path / "data", "raw/")
    catalogue = pull(workspace, StoreSettings(), PullSettings()).catalogue_uri
    splits = SplitSettings(validation=0.2, test=0.5)
    dataset = prepare(workspace, catalogue, PrepareSettings(parallel=1, splits=splits)).dataset_uri
    model = upload_model(workspace, model_folder)
    monkeypatch.setattr("boneseg.evaluate.measure_series.pool", lambda *_, **__: FirstIsLost())
    with pytest.raises(DataError, match=r"1 test series could not be measured .*series-\w+.* twice.*evaluate again"):
        evaluate(workspace, model, dataset, settings)
    kept = [item.key.rpartition("/")[2] for item in workspace.store.list("evaluations/")]
    assert set(kept) == {"measurement.json"}
