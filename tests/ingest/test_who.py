"""Who is who by paths and by the table of patients: nobody is taken for two people, or it is said."""

from pathlib import Path

import pytest

from boneseg.dataset.prepare import prepare
from boneseg.dataset.shards import load_dataset
from boneseg.errors import DataError
from boneseg.ingest.patient_table import read_table
from boneseg.ingest.patients import told_by_path
from boneseg.ingest.pull import pull
from boneseg.settings.schema import PrepareSettings, PullSettings, StoreSettings
from boneseg.storage.catalogue import ToldBy
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace
from boneseg.terminal_names import reader_of
from tests.ct_files import dicom, nifti, nifti_label, place


@pytest.mark.parametrize(
    "paths",
    [
        ("ses-1/sub-02_ct.nii.gz", "ses-2/sub-02_ct.nii.gz"),
        ("imagesTr/sub-01_ses-1_ct.nii.gz", "imagesTs/sub-01_ses-2_ct.nii.gz"),
        ("rawdata/sub-01/ct.nii.gz", "derivatives/iso/sub-01/ct.nii.gz"),
        ("sub-01/ses-1/ct.nii.gz", "sub-01/ses-2/anat/ct.nii.gz"),
        ("data/train/sub-7/ct.nii.gz", "data/test/sub-7/ct.nii.gz"),
        ("site1/pre/sub-3_ct.nii", "site1/post/sub-3_ct.nii"),
    ],
)
def test_one_subject_in_sessions_and_parts_of_a_data_set_is_one_person(paths: tuple[str, str]) -> None:
    told = told_by_path(paths)
    assert len({place for rule, place in told.values() if rule == ToldBy.BIDS}) == 1


def test_the_same_subject_of_two_data_sets_is_two_people() -> None:
    told = told_by_path(("hospital-a/sub-01/ct.nii.gz", "hospital-b/sub-01/ct.nii.gz"))
    assert len({place for _, place in told.values()}) == 2


@pytest.mark.parametrize(
    "name",
    ["patient_0{}", "case{}", "subject_{}", "Patient {}", "hip-{}", "scan{}", "P00{}", "pat0{}", "patient_000{}"],
)
def test_a_numbered_folder_of_a_few_series_is_a_patient(name: str) -> None:
    paths = [f"{name.format(number)}/{time}/ct.nii.gz" for number in range(1, 5) for time in ("pre", "post")]
    told = told_by_path(paths)
    for one, two in zip(paths[::2], paths[1::2], strict=True):
        assert told[one] == told[two]
    assert len({place for _, place in told.values()}) == 4


@pytest.mark.parametrize(
    "name", ["site{}", "batch_{}", "fold{}", "part-{}", "images{}", "cases", "patients", "volumes"]
)
def test_a_folder_of_a_collection_is_none(name: str) -> None:
    paths = [f"{name.format(number % 2)}/p{number}.nii.gz" for number in range(4)]
    assert told_by_path(paths) == {}


def fill(workspace: Workspace, folder: Path, count: int = 5) -> None:
    for number in range(count):
        at = place(at=(0, 0, 100.0 * number))
        dicom(folder / f"scan-{number}", number, patient=f"P{number}", geometry=at)
        nifti_label(folder / f"scan-{number}" / "label.nii.gz", at)
    upload_folder(workspace.store, folder, "raw/")


@pytest.mark.parametrize("end", ["", "/"])
def test_a_line_of_the_table_is_of_a_folder_with_and_without_a_slash(
    workspace: Workspace, tmp_path: Path, end: str
) -> None:
    fill(workspace, tmp_path / "data")
    lines = ["series,patient,split", f"scan-1{end},one,", f"scan-3{end},one,test", f"scan-4{end},,train"]
    workspace.store.write("raw/patients.csv", "\n".join(lines).encode())
    uri = pull(workspace, StoreSettings(), PullSettings()).catalogue_uri
    result = prepare(workspace, uri, PrepareSettings(parallel=1))
    readable = reader_of(workspace)
    entries = load_dataset(workspace, result.dataset_uri).entries
    found = {readable(entry.shard.source).split("/")[0]: entry for entry in entries}
    assert found["scan-1"].shard.patient == found["scan-3"].shard.patient
    assert [found[name].split for name in ("scan-1", "scan-3", "scan-4")] == ["test", "test", "train"]


def test_a_line_that_names_a_file_of_a_series_is_refused_and_one_of_no_series_told(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "data" / "notes").mkdir(parents=True)
    (tmp_path / "data" / "notes" / "readme.txt").write_text("hello")
    fill(workspace, tmp_path / "data", 2)
    file = next((tmp_path / "data" / "scan-1").glob("*.dcm")).name
    workspace.store.write("raw/patients.csv", f"series,patient\nscan-1/{file},one\n".encode())
    with pytest.raises(DataError, match=r"line 2.*is a file of series .*; name the series"):
        pull(workspace, StoreSettings(), PullSettings())
    workspace.store.write("raw/patients.csv", b"series,patient\nnotes/,one\n")
    result = pull(workspace, StoreSettings(), PullSettings())
    assert any("changes nothing" in problem.reason for problem in result.problems)


def test_subjects_of_one_name_in_several_data_sets_are_told(workspace: Workspace, tmp_path: Path) -> None:
    for number, (site, subject) in enumerate((site, subject) for site in "ab" for subject in ("sub-1", "sub-2")):
        nifti(tmp_path / "data" / site / subject / "ct.nii.gz", number)
    upload_folder(workspace.store, tmp_path / "data", "raw/")
    result = pull(workspace, StoreSettings(), PullSettings())
    (note,) = [problem.reason for problem in result.problems if "several folders" in problem.reason]
    assert reader_of(workspace)(note).startswith("sub-1, sub-2 lie in several folders")
    assert "4 patients" in result.patients


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("series;patient\na;one\n", "with commas between them"),
        ("Series,Patient\na,one\n", "in small letters"),
        ("series,patient,patient\na,one,two\n", "each once"),
        ("series,patient\na,one,two\n", "line 2: has more cells than columns"),
        ("series,patient\na,one\nb,two\na/,three\n", "line 4: says something else of 'a/' than .*line 2"),
        ("series,split\na,test\na,train\n", "line 3: says something else of 'a' than .*line 2"),
    ],
)
def test_a_table_that_contradicts_itself_or_is_none_is_refused(text: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_table(text.encode(), "patients.csv")


def test_names_are_the_same_however_their_letters_are_written() -> None:
    lines = read_table("series,patient\na,M\u00fcller\nb,Mu\u0308ller\na,M\u00fcller\n".encode(), "patients.csv")
    assert lines[0].patient == lines[1].patient
