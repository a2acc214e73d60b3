import csv
import io
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from boneseg.dataset.make_shards import Prepared, Task, prepare_series
from boneseg.dataset.manifest import Dataset
from boneseg.dataset.prepare import PrepareResult, prepare
from boneseg.dataset.shards import load_dataset, open_shard
from boneseg.dataset.splits import SplitState
from boneseg.errors import DataError, RecordError, StoreError
from boneseg.ingest.pull import pull
from boneseg.nifti import write_volume
from boneseg.scheme import LabelScheme
from boneseg.settings.schema import PrepareSettings, PullSettings, Split, SplitSettings, StoreSettings
from boneseg.storage import layout
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace
from boneseg.terminal_names import reader_of
from tests.ct_files import body, dicom, nifti, place, seg_label, truncate

SETTINGS = PrepareSettings(parallel=1)


def case(folder: Path, seed: int, label_value: int | None = None) -> Path:
    """Write a NIfTI series with its label; a value adds an unknown one to the label."""
    nifti(folder / "ct.nii.gz", seed)
    label = body(seed)[1]
    if label_value is not None:
        label[0, 0, 0] = label_value
    write_volume(folder / "label.nii.gz", label, place())
    return folder


def run(workspace: Workspace, folder: Path, settings: PrepareSettings = SETTINGS) -> tuple[PrepareResult, Dataset]:
    upload_folder(workspace.store, folder, "raw/")
    result = prepare(workspace, pull(workspace, StoreSettings(), PullSettings()).catalogue_uri, settings)
    return result, load_dataset(workspace, result.dataset_uri)


def table(workspace: Workspace, result: PrepareResult, name: str) -> list[dict[str, str]]:
    text = workspace.store.read(layout.dataset(result.dataset_hash, name)).decode()
    return list(csv.DictReader(io.StringIO(text)))


def reasons(workspace: Workspace, result: PrepareResult) -> dict[str, str]:
    readable = reader_of(workspace)
    return {readable(problem.source): readable(problem.reason) for problem in result.problems}


def folder(workspace: Workspace, source: str) -> str:
    """Return the first folder of where a series lies."""
    return reader_of(workspace)(source).split("/")[0]


def test_shards_hold_the_series_and_its_classes(workspace: Workspace, tmp_path: Path) -> None:
    for seed in range(4):
        case(tmp_path / "data" / f"case{seed}", seed)
    result, dataset = run(workspace, tmp_path / "data")
    assert result.series == {"train": 2, "validation": 1, "test": 1}
    assert result.slices == {"train": 12, "validation": 6, "test": 6}
    assert (result.made, result.reused, result.problems) == (4, 0, ())
    for entry in dataset.entries:
        seed = int(folder(workspace, entry.shard.source).removeprefix("case"))
        hu, label = body(seed)
        shard = open_shard(workspace, entry.shard)
        np.testing.assert_array_equal(shard.image, hu)
        np.testing.assert_array_equal(shard.label, label)
        assert isinstance(shard.image, np.memmap)
        assert entry.shard.class_counts[0] == tuple(np.bincount(label[0].ravel()))


def test_the_index_lists_every_slice_with_its_classes(workspace: Workspace, tmp_path: Path) -> None:
    for seed in range(3):
        case(tmp_path / "data" / f"case{seed}", seed)
    result, _ = run(workspace, tmp_path / "data")
    rows = table(workspace, result, "index.csv")
    assert len(rows) == 18
    assert sorted({row["split"] for row in rows}) == ["test", "train", "validation"]
    assert [rows[0][name] for name in ("background", "patient outline", "bone")] == ["320", "236", "20"]


def test_a_second_run_reuses_everything_and_a_new_series_redoes_only_itself(
    workspace: Workspace, tmp_path: Path
) -> None:
    for seed in range(3):
        case(tmp_path / "data" / f"case{seed}", seed)
    first, before = run(workspace, tmp_path / "data")
    again, _ = run(workspace, tmp_path / "data")
    assert again == first.model_copy(update={"made": 0, "reused": 3})
    case(tmp_path / "data" / "case3", 3)
    more, after = run(workspace, tmp_path / "data")
    assert (more.made, more.reused) == (1, 3)
    assert more.test_hash == first.test_hash
    assert more.dataset_hash != first.dataset_hash
    old = {entry.shard.shard: entry.split for entry in before.entries}
    assert old.items() <= {entry.shard.shard: entry.split for entry in after.entries}.items()


def test_settings_that_change_the_label_make_other_shards(workspace: Workspace, tmp_path: Path) -> None:
    for seed in range(3):
        case(tmp_path / "data" / f"case{seed}", seed)
    run(workspace, tmp_path / "data")
    other, _ = run(workspace, tmp_path / "data", PrepareSettings(parallel=1, label_map={1: 1, 2: 2}))
    assert (other.made, other.reused) == (3, 0)


def test_bad_series_are_named_with_a_reason_and_the_rest_goes_on(workspace: Workspace, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for seed in range(3):
        case(data / f"case{seed}", seed)
    case(data / "unknown", 10, label_value=7)
    nifti(data / "unlabelled" / "ct.nii.gz", 11, place(at=(500, 0, 0)))
    dicom(data / "shifted" / "ct", 12, geometry=place(at=(0, 0, 900)))
    seg_label(data / "shifted" / "label.dcm", place(at=(4, 0, 900)))
    result, dataset = run(workspace, data)
    assert result.made == 3
    assert {folder(workspace, entry.shard.source) for entry in dataset.entries} == {"case0", "case1", "case2"}
    found = reasons(workspace, result)
    assert "label values 1, 2, 7 are unknown" in found["unknown/ct.nii.gz"]
    assert "no label" in found["unlabelled/ct.nii.gz"]
    assert "fits no series" in found["shifted/label.dcm"]
    readable = reader_of(workspace)
    fatal = {readable(row["source"]): row["fatal"] for row in table(workspace, result, "qc.csv")}
    assert fatal["unknown/ct.nii.gz"] == "true"
    assert fatal["unlabelled/ct.nii.gz"] == "false"


def test_a_truncated_slice_costs_only_its_series(workspace: Workspace, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for seed in range(3):
        case(data / f"case{seed}", seed)
    paths = dicom(data / "cut" / "ct", 5, geometry=place(at=(0, 0, 300)))
    seg_label(data / "cut" / "label.dcm", place(at=(0, 0, 300)))
    truncate(paths[3])
    result, _ = run(workspace, data)
    assert result.made == 3
    assert any(folder(workspace, problem.source) == "cut" and problem.fatal for problem in result.problems)


def test_no_usable_series_is_one_sentence_with_the_reasons(workspace: Workspace, tmp_path: Path) -> None:
    case(tmp_path / "data" / "odd", 0, label_value=9)
    with pytest.raises(DataError, match=r"all 1 labelled series were refused.*values 1, 2, 9") as caught:
        run(workspace, tmp_path / "data")
    assert "odd/ct.nii.gz: odd/label.nii.gz: label values" in reader_of(workspace)(str(caught.value))
    assert "odd" not in str(caught.value)
    assert workspace.store.read_if_there(layout.SPLITS_STATE) is None


def test_no_label_at_all_says_what_to_add(workspace: Workspace, tmp_path: Path) -> None:
    nifti(tmp_path / "data" / "ct.nii.gz")
    with pytest.raises(DataError, match="none of 1 series has a label; put"):
        run(workspace, tmp_path / "data")


def test_series_of_one_dicom_patient_share_a_split(workspace: Workspace, tmp_path: Path) -> None:
    for number in range(5):
        at = place(at=(0, 0, 100.0 * number))
        dicom(tmp_path / "data" / f"s{number}" / "ct", number, patient=f"P{number // 2}", geometry=at)
        seg_label(tmp_path / "data" / f"s{number}" / "label.dcm", at)
    _, dataset = run(workspace, tmp_path / "data")
    splits = {folder(workspace, entry.shard.source): entry.split for entry in dataset.entries}
    assert len(splits) == 5
    assert splits["s0"] == splits["s1"]
    assert splits["s2"] == splits["s3"]
    assert len(set(splits.values())) == 3


def test_a_renamed_file_stays_in_its_split(workspace: Workspace, tmp_path: Path) -> None:
    for seed in range(6):
        case(tmp_path / "data" / f"case{seed}", seed)
    first, before = run(workspace, tmp_path / "data")
    readable = reader_of(workspace)
    splits = {f"renamed-{readable(entry.shard.source)}": entry.split for entry in before.entries}
    for item in list(workspace.store.list("raw/")):
        workspace.store.delete(item.key)
    for folder in sorted((tmp_path / "data").iterdir()):
        folder.rename(folder.with_name(f"renamed-{folder.name}"))
    second, after = run(workspace, tmp_path / "data")
    assert (second.made, second.dataset_hash, second.test_hash) == (0, first.dataset_hash, first.test_hash)
    readable = reader_of(workspace)
    assert {readable(entry.shard.source): entry.split for entry in after.entries} == splits


def test_an_override_unites_files_of_one_patient_and_places_them(workspace: Workspace, tmp_path: Path) -> None:
    for seed in range(4):
        case(tmp_path / "data" / f"case{seed}", seed)
    override = tmp_path / "override.csv"
    override.write_text("series,patient,split\ncase0/,Miller,test\ncase1/,Miller,\n")
    settings = PrepareSettings(parallel=1, splits=SplitSettings(override=override))
    result, dataset = run(workspace, tmp_path / "data", settings)
    assert {folder(workspace, record.source) for record in dataset.of(Split.TEST)} == {"case0", "case1"}
    listed = [item.key for item in workspace.store.list() if not item.key.startswith("raw/")]
    assert not any(b"Miller" in workspace.store.read(key) for key in listed)
    override.write_text("series,patient,split\ncase0/,Miller,test\ncase1/,Miller,train\n")
    with pytest.raises(DataError, match=r"two splits for one patient: (test|train) for series-"):
        run(workspace, tmp_path / "data", settings)
    assert load_dataset(workspace, result.dataset_uri) == dataset


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"known": {"x": "tr'])
@pytest.mark.parametrize("count", [2, 6])
def test_damaged_splits_are_made_anew_from_the_datasets(
    workspace: Workspace, tmp_path: Path, count: int, damage: bytes
) -> None:
    for seed in range(count):
        case(tmp_path / "data" / f"case{seed}", seed)
    first, _ = run(workspace, tmp_path / "data")
    before = SplitState.read(workspace.store.read(layout.SPLITS_STATE), "", "")
    workspace.store.write(layout.SPLITS_STATE, damage)
    again, _ = run(workspace, tmp_path / "data")
    assert (again.dataset_hash, again.test_hash) == (first.dataset_hash, first.test_hash)
    assert SplitState.read(workspace.store.read(layout.SPLITS_STATE), "", "") == before


def test_splits_are_not_guessed_where_a_dataset_is_damaged_too(workspace: Workspace, tmp_path: Path) -> None:
    for seed in range(3):
        case(tmp_path / "data" / f"case{seed}", seed)
    first, _ = run(workspace, tmp_path / "data")
    for key in (layout.SPLITS_STATE, layout.dataset(first.dataset_hash)):
        workspace.store.write(key, b"half")
    with pytest.raises(RecordError, match=r"datasets/.*cannot be made anew without it.*boneseg store remove"):
        run(workspace, tmp_path / "data")


def test_a_dataset_whose_content_is_not_what_its_hashes_say_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    for seed in range(4):
        case(tmp_path / "data" / f"case{seed}", seed)
    result, dataset = run(workspace, tmp_path / "data")
    others = [
        {"entries": dataset.entries[1:]},
        {"entries": tuple(entry.model_copy(update={"split": Split.TEST}) for entry in dataset.entries)},
        {"test_hash": "0" * 16},
        {"dataset_hash": "0" * 16},
    ]
    for other in others:
        changed = dataset.model_copy(update=other)
        workspace.store.write(workspace.store.key(result.dataset_uri), changed.to_json())
        with pytest.raises(RecordError, match=r"was changed after it was written; make the dataset again"):
            load_dataset(workspace, result.dataset_uri)
    again, _ = run(workspace, tmp_path / "data")
    assert again.dataset_hash == result.dataset_hash


def test_a_record_that_lies_under_another_ones_name_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    kept = []
    for seed in range(4):
        case(tmp_path / "data" / f"case{seed}", seed)
        if seed >= 2:
            kept.append(run(workspace, tmp_path / "data")[0].dataset_uri)
    store = workspace.store
    store.write(store.key(kept[0]), store.read(store.key(kept[1])))
    with pytest.raises(RecordError, match="was changed after it was written; make the dataset again"):
        load_dataset(workspace, kept[0])
    one, other = (item.key for item in store.list("catalogues/"))
    store.write(one, store.read(other))
    with pytest.raises(RecordError, match="was changed after it was written; make it again with 'boneseg pull'"):
        prepare(workspace, store.uri(one), SETTINGS)


def test_two_patients_validate_on_the_training_series_and_say_so(workspace: Workspace, tmp_path: Path) -> None:
    for seed in range(2):
        case(tmp_path / "data" / f"case{seed}", seed)
    result, dataset = run(workspace, tmp_path / "data")
    assert result.series == {"train": 1, "validation": 1, "test": 1}
    assert dataset.of(Split.VALIDATION) == dataset.of(Split.TRAIN)
    assert "chosen on the training series" in reasons(workspace, result)["validation"]


def test_processes_make_the_same_dataset(workspace: Workspace, tmp_path: Path) -> None:
    for seed in range(3):
        case(tmp_path / "data" / f"case{seed}", seed)
    result, _ = run(workspace, tmp_path / "data", PrepareSettings(parallel=2))
    assert result.made == 3
    alone, _ = run(workspace, tmp_path / "data")
    assert (alone.dataset_hash, alone.reused) == (result.dataset_hash, 3)


def test_a_half_written_shard_is_made_again(workspace: Workspace, tmp_path: Path) -> None:
    for seed in range(3):
        case(tmp_path / "data" / f"case{seed}", seed)
    _, dataset = run(workspace, tmp_path / "data")
    record = dataset.entries[0].shard
    workspace.store.delete(layout.shard(record.shard, "shard.json"))  # what a run killed in between leaves behind
    workspace.store.write(layout.shard(record.shard, "image.npy"), b"half")
    again, dataset = run(workspace, tmp_path / "data")
    assert (again.made, again.reused) == (1, 2)
    assert open_shard(workspace, record).image.shape == record.geometry.shape


def test_a_full_disk_is_one_clear_sentence_and_leaves_no_shard(workspace: Workspace, tmp_path: Path) -> None:
    for seed in range(3):
        case(tmp_path / "data" / f"case{seed}", seed)
    upload_folder(workspace.store, tmp_path / "data", "raw/")
    uri = pull(workspace, StoreSettings(), PullSettings()).catalogue_uri
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))  # image.npy has 7 kB
    try:
        with pytest.raises(StoreError, match=r"cannot write to the cache .* free some space"):
            prepare(workspace, uri, SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(workspace.store.list("shards/"))
    assert prepare(workspace, uri, SETTINGS).made == 3


SCRIPT = """
import sys
from pathlib import Path
from boneseg.settings.schema import PrepareSettings
from boneseg.dataset.prepare import prepare
from boneseg.storage.client import ObjectStore
from boneseg.storage.credentials import look_up
from boneseg.storage.workspace import Workspace

if __name__ == "__main__":
    endpoint, bucket, folder, catalogue = sys.argv[1:]
    store = ObjectStore(endpoint, bucket, look_up().now())
    prepare(Workspace(store, Path(folder)), catalogue, PrepareSettings(parallel=2))
"""


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_ends_at_once_and_is_continued(
    workspace: Workspace, tmp_path: Path, sign: signal.Signals
) -> None:
    for seed in range(16):
        case(tmp_path / "data" / f"case{seed:02d}", seed)
    upload_folder(workspace.store, tmp_path / "data", "raw/")
    uri = pull(workspace, StoreSettings(), PullSettings()).catalogue_uri
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    keys = workspace.store.credentials
    process = subprocess.Popen(
        [sys.executable, script, workspace.store.endpoint, workspace.store.bucket, workspace.folder, uri],
        env=os.environ | {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key},
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not any(i.key.endswith("shard.json") for i in workspace.store.list("shards/")):
        pass
    process.send_signal(sign)
    _, errors = process.communicate(timeout=60)  # also waits for the workers, who hold the pipe's other end
    assert process.returncode != 0
    assert errors.count("Traceback") <= 1, errors
    assert not list(workspace.store.list("datasets/"))
    result = prepare(workspace, uri, SETTINGS)
    assert result.reused >= 1
    assert result.made + result.reused == 16


def test_a_series_that_kills_its_process_costs_only_itself(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(3):
        case(tmp_path / "data" / f"case{seed}", seed)
    nifti(tmp_path / "data" / "huge" / "ct.nii.gz", 9, place(at=(0, 0, 70)))
    write_volume(tmp_path / "data" / "huge" / "label.nii.gz", body(9)[1], place(at=(0, 0, 70)))
    monkeypatch.setattr("boneseg.dataset.make_shards.prepare_series", killed_by_huge)
    result, _ = run(workspace, tmp_path / "data", PrepareSettings(parallel=2))
    assert result.made == 3
    ((source, reason),) = reasons(workspace, result).items()
    assert source == "huge/ct.nii.gz"
    assert reason.startswith("its process was killed twice")
    assert "use a machine with more memory" in reason
    monkeypatch.undo()
    again, _ = run(workspace, tmp_path / "data")
    assert (again.made, again.reused) == (1, 3)


def killed_by_huge(workspace: Workspace, settings: PrepareSettings, scheme: LabelScheme, task: Task) -> Prepared:
    """Do what prepare does, and die of the series that lies 70 mm from the others."""
    if task.row.geometry.geometry().affine[2, 3] == 70:
        os.kill(os.getpid(), signal.SIGKILL)
    return prepare_series(workspace, settings, scheme, task)
