import json
import re
import shutil
from pathlib import Path

import pytest

from boneseg.errors import DataError, StoreError
from boneseg.ingest import pull as module
from boneseg.ingest.known import KnownObjects
from boneseg.ingest.pull import PullResult, fingerprint, pull
from boneseg.settings.schema import PullSettings, StoreSettings
from boneseg.storage import layout
from boneseg.storage.cache import Cache
from boneseg.storage.catalogue import Catalogue, ObjectRef
from boneseg.storage.client import Credentials, ObjectStore
from boneseg.storage.hashing import sha256_file
from boneseg.storage.published import Published, write_published
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace
from boneseg.terminal_names import reader_of
from tests.ct_files import dicom, nifti, nifti_label, truncate

PATIENT = "4711"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two labelled series: one of six DICOM slices, one NIfTI volume."""
    dicom(tmp_path / "raw" / "a" / "dicom", seed=1, patient=PATIENT)
    nifti_label(tmp_path / "raw" / "a" / "label.nii.gz")
    nifti(tmp_path / "raw" / "b" / "ct.nii.gz", seed=2)
    nifti_label(tmp_path / "raw" / "b" / "label.nii.gz", seed=2)
    return tmp_path / "raw"


def run(workspace: Workspace, raw: Path | None = None) -> PullResult:
    if raw is not None:
        upload_folder(workspace.store, raw, "raw/")
    return pull(workspace, StoreSettings(), PullSettings(parallel=4))


def known(workspace: Workspace) -> dict[str, ObjectRef]:
    return KnownObjects(workspace.store, workspace.private, workspace.patient_secret()).by_content()


def catalogue(workspace: Workspace, result: PullResult) -> Catalogue:
    return Catalogue.model_validate_json(workspace.store.read(workspace.store.key(result.catalogue_uri)))


def test_pull_writes_a_catalogue_of_what_is_there(workspace: Workspace, raw: Path) -> None:
    result = run(workspace, raw)
    assert (result.series, result.labelled, result.downloaded, result.reused) == (2, 2, 9, 0)
    assert result.changed
    assert result.catalogue_uri == workspace.store.uri(layout.catalogue(result.fingerprint))
    rows = catalogue(workspace, result).series
    readable = reader_of(workspace)
    assert [readable(row.source) for row in rows] == ["a/dicom", "b/ct.nii.gz"]
    assert all(re.fullmatch("series-[0-9a-f]{12}", row.source) for row in rows)
    objects = known(workspace)
    cache = Cache(workspace.cache, workspace.store)
    for row in rows:
        for item in row.objects:
            local = raw / objects[item.sha256].key.removeprefix("raw/")
            assert item.sha256 == sha256_file(local) == sha256_file(cache.fetch(objects[item.sha256]))
            assert (item.size, item.key) == (local.stat().st_size, "")


def test_second_pull_reads_nothing(workspace: Workspace, raw: Path) -> None:
    first = run(workspace, raw)
    second = run(workspace)
    assert (second.downloaded, second.reused) == (0, 9)
    assert (second.fingerprint, second.catalogue_uri) == (first.fingerprint, first.catalogue_uri)


def test_another_machine_reads_nothing_either(workspace: Workspace, raw: Path, tmp_path: Path) -> None:
    first = run(workspace, raw)
    elsewhere = Workspace(workspace.store, tmp_path / "elsewhere")
    assert run(elsewhere).downloaded == 0
    assert run(elsewhere).fingerprint == first.fingerprint


def test_only_new_objects_are_read(workspace: Workspace, raw: Path) -> None:
    first = run(workspace, raw)
    dicom(raw / "c", seed=3, patient="P3")
    second = run(workspace, raw)
    assert (second.series, second.labelled, second.downloaded, second.reused) == (3, 2, 6, 9)
    assert second.fingerprint != first.fingerprint


def test_only_changed_objects_are_read(workspace: Workspace, raw: Path) -> None:
    first = run(workspace, raw)
    nifti_label(raw / "b" / "label.nii.gz", seed=5)
    second = run(workspace, raw)
    assert (second.series, second.labelled, second.downloaded, second.reused) == (2, 2, 1, 8)
    assert second.fingerprint != first.fingerprint
    before, after = (catalogue(workspace, result).series for result in (first, second))
    assert [row.series for row in before] == [row.series for row in after]  # the images are the same


def test_deleted_objects_leave_the_catalogue(workspace: Workspace, raw: Path) -> None:
    first = run(workspace, raw)
    workspace.store.delete("raw/a/label.nii.gz")
    second = run(workspace)
    assert (second.series, second.labelled, second.downloaded, second.reused) == (2, 1, 0, 8)
    for item in list(workspace.store.list("raw/a/")):
        workspace.store.delete(item.key)
    third = run(workspace)
    assert (third.series, third.labelled) == (1, 1)
    upload_folder(workspace.store, raw, "raw/")
    assert run(workspace).fingerprint == first.fingerprint


def test_uploading_the_same_files_again_changes_nothing(workspace: Workspace, raw: Path) -> None:
    first = run(workspace, raw)
    for path in sorted((raw / "a").rglob("*.dcm"), reverse=True):
        workspace.store.upload(path, f"raw/{path.relative_to(raw).as_posix()}")
    second = run(workspace)
    assert second.fingerprint == first.fingerprint


def test_fingerprint_covers_series_label_and_patient_but_not_order(workspace: Workspace, raw: Path) -> None:
    rows = catalogue(workspace, run(workspace, raw)).series
    assert fingerprint(rows) == fingerprint(rows[::-1])
    first, rest = rows[0], rows[1:]
    others = [{"series": "x"}, {"patient": "x"}, {"study": "x"}, {"label": None}]
    marks = {fingerprint((first.model_copy(update=other), *rest)) for other in others}
    assert len(marks | {fingerprint(rows)}) == 5


def test_changed_compares_with_the_run_published_under_the_model_s_name(workspace: Workspace, raw: Path) -> None:
    first = run(workspace, raw)
    earlier = {"fingerprint": first.fingerprint, "dataset_hash": "", "model": "bone:1"}
    workspace.store.write(layout.PUBLISHED_STATE, json.dumps(earlier).encode())
    assert not run(workspace).changed
    settings = StoreSettings(), PullSettings()
    assert pull(workspace, *settings, "another").changed
    published = Published(fingerprint=first.fingerprint, model="another:1")
    write_published(workspace.store, "another", published, None)
    assert not pull(workspace, *settings, "another").changed
    dicom(raw / "c", seed=3)
    assert run(workspace, raw).changed
    assert pull(workspace, *settings, "another").changed


@pytest.mark.parametrize("failure", [KeyboardInterrupt, StoreError])
def test_an_interrupted_pull_goes_on_where_it_was(
    workspace: Workspace, raw: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    upload_folder(workspace.store, raw, "raw/")
    seen = []
    inspect = module.inspect

    def interrupted(path: Path, *rest: object) -> object:
        seen.append(path)
        if len(seen) == 6:
            raise failure
        return inspect(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "inspect", interrupted)
    with pytest.raises(failure):
        pull(workspace, StoreSettings(), PullSettings(parallel=1))
    assert not list(workspace.store.list("catalogues/"))
    monkeypatch.setattr(module, "inspect", inspect)
    result = run(workspace)
    assert result.series == 2
    assert result.reused >= 4
    assert result.downloaded + result.reused == 9


def test_state_is_saved_on_the_way(workspace: Workspace, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saves = []
    monkeypatch.setattr(module, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(KnownObjects, "save", lambda self, known, gone: saves.append(len(known)))
    run(workspace, raw)
    assert saves == [*range(1, 10), 9]


def test_damaged_state_is_made_anew(workspace: Workspace, raw: Path) -> None:
    first = run(workspace, raw)
    workspace.store.write("raw/.boneseg/objects.json", b'{"version": 1, "obj')
    second = run(workspace)
    assert (second.downloaded, second.fingerprint) == (9, first.fingerprint)


DAMAGES = [b"", b"[]", b"{}", b"\xff", "half", "edited", "seal taken off"]


def damaged(data: bytes, damage: bytes | str) -> bytes:
    if isinstance(damage, bytes):
        return damage
    if damage == "half":
        return data[: len(data) // 2]
    values = json.loads(data)
    if damage == "edited":
        return json.dumps({**values, "folder": "elsewhere/", "names": {}}).encode()
    return json.dumps({key: value for key, value in values.items() if key != "seal"}).encode()


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
@pytest.mark.parametrize("key", ["state/private.json", "raw/.boneseg/names.json"])
def test_what_is_kept_of_names_and_places_is_made_anew_where_it_is_damaged(
    workspace: Workspace, raw: Path, key: str, damage: bytes | str
) -> None:
    first = run(workspace, raw)
    before = workspace.store.read("raw/.boneseg/names.json")
    workspace.store.write(key, damaged(workspace.store.read(key), damage))
    again = Workspace(workspace.store, workspace.folder)
    second = run(again)
    assert (second.fingerprint, second.downloaded) == (first.fingerprint, 0)
    assert workspace.store.read("raw/.boneseg/names.json") == before
    assert Workspace(workspace.store, workspace.folder).private.key_check
    assert reader_of(again)(catalogue(again, second).series[0].source) == "a/dicom"


@pytest.mark.parametrize("folder", ["raw/", "raw/.boneseg", "raw/.boneseg0", "raw/x.boneseg/", ""])
def test_private_files_never_lie_among_the_data(workspace: Workspace, raw: Path, folder: str) -> None:
    workspace.store.write("state/private.json", json.dumps({"folder": folder}).encode())
    run(workspace, raw)
    ours = [item.key for item in workspace.store.list("raw/") if item.key.split("/")[1] not in ("a", "b")]
    assert all(key.startswith("raw/.boneseg/") for key in ours)


def test_a_damaged_note_of_the_private_folder_finds_it_where_it_lies(workspace: Workspace, raw: Path) -> None:
    upload_folder(workspace.store, raw, "data/set/")
    elsewhere = StoreSettings(raw_prefix="data/set/")
    first = pull(Workspace(workspace.store, workspace.folder, "data/set/"), elsewhere, PullSettings())
    workspace.store.write("state/private.json", b"half")
    for item in list(workspace.store.list("data/set/")):
        if ".boneseg" not in item.key:
            workspace.store.write(f"raw/{item.key.removeprefix('data/set/')}", workspace.store.read(item.key))
    second = pull(Workspace(workspace.store, workspace.folder), StoreSettings(), PullSettings())
    assert second.fingerprint == first.fingerprint


def test_another_patient_secret_gives_other_patients(
    workspace: Workspace, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BONESEG_PATIENT_KEY", "one")
    first = catalogue(workspace, run(workspace, raw)).series
    monkeypatch.setenv("BONESEG_PATIENT_KEY", "two")
    second = catalogue(workspace, run(workspace)).series
    assert {row.patient for row in first}.isdisjoint(row.patient for row in second)


def test_one_truncated_object_is_named_and_the_rest_goes_on(workspace: Workspace, raw: Path) -> None:
    truncate(raw / "b" / "ct.nii.gz")
    result = run(workspace, raw)
    assert (result.series, result.labelled) == (1, 1)
    readable = reader_of(workspace)
    left_out = [readable(problem.source) for problem in result.problems if problem.fatal]
    assert left_out == ["b/ct.nii.gz", "b/label.nii.gz"]
    assert "damaged or cut short" in result.problems[0].reason


def test_empty_bucket_says_what_to_put_where(workspace: Workspace) -> None:
    with pytest.raises(DataError, match=r"nothing is below s3://.*/raw/: put CT series there .*boneseg upload"):
        run(workspace)


def test_bucket_without_ct_is_told(workspace: Workspace) -> None:
    workspace.store.write("raw/readme.txt", b"hello")
    workspace.store.write("raw/table.csv", b"a,b\n1,2\n")
    with pytest.raises(DataError, match=r"no CT series .* among the 2 objects"):
        run(workspace)


def test_wrong_credentials_are_told(workspace: Workspace) -> None:
    wrong = ObjectStore(workspace.store.endpoint, workspace.store.bucket, Credentials("x", "y"))
    with pytest.raises(StoreError, match="refuses the credentials"):
        run(Workspace(wrong, workspace.folder))


def test_other_prefixes_are_left_alone(workspace: Workspace, raw: Path) -> None:
    upload_folder(workspace.store, raw / "a", "raw/a/")
    upload_folder(workspace.store, raw / "b", "elsewhere/b/")
    assert run(workspace).series == 1
    settings = StoreSettings(raw_prefix="elsewhere/")
    assert pull(workspace, settings, PullSettings()).series == 1


def test_object_that_disappears_meanwhile_is_left_out(
    workspace: Workspace, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_folder(workspace.store, raw, "raw/")
    listing = list(workspace.store.list("raw/"))
    workspace.store.delete("raw/b/ct.nii.gz")
    monkeypatch.setattr(ObjectStore, "list", lambda self, prefix="": iter(listing))
    assert run(workspace).series == 1


def test_cache_can_be_thrown_away(workspace: Workspace, raw: Path) -> None:
    result = run(workspace, raw)
    shutil.rmtree(workspace.folder)
    item = known(workspace)[catalogue(workspace, result).series[0].objects[0].sha256]
    assert sha256_file(Cache(workspace.cache, workspace.store).fetch(item)) == item.sha256


@pytest.mark.slow
def test_real_series_go_through(workspace: Workspace, shared_series: Path) -> None:
    result = run(workspace, shared_series)
    assert (result.series, result.labelled, result.problems) == (7, 7, ())
    again = run(workspace)
    assert (again.downloaded, again.fingerprint) == (0, result.fingerprint)
