"""Marks in names of folders and files, in headers and labels, lead to nothing outside the raw data."""

import json
import logging
from pathlib import Path
from typing import Any

import nibabel
import pydicom
import pytest
from kfp import dsl

from boneseg.dataset.prepare import prepare as prepare_dataset
from boneseg.evaluate.evaluate import evaluate_folder
from boneseg.ingest.pull import pull as pull_bucket
from boneseg.nifti import write_volume
from boneseg.phantom.series import write_phantom
from boneseg.settings.schema import EvaluateSettings, PrepareSettings, PullSettings, StoreSettings
from boneseg.storage.upload import upload_folder
from boneseg.storage.workspace import Workspace
from boneseg.terminal_names import reader_of
from components.configure.component import configure
from components.evaluate.component import evaluate
from components.prepare.component import prepare
from components.publish.component import publish
from components.pull.component import pull
from components.train.component import train
from tests.ct_files import body, dicom, nifti, nifti_label, place, seg_label, truncate
from tests.pipelines.tiny import as_on_a_cluster, overrides

MARKS = ("Wunderlich", "wunderlich", "WUNDERLICH", "Ünlü", "4711-0815", "19470311", "20190228", "Oberammergau")
"""People's names, numbers, dates and places; no word of boneseg's."""
PEOPLE = {"a": "Wunderlich_Anna", "b": "Wunderlich, Bert", "c": "Ünlü 4711-0815"}


def plant(folder: Path, slices: int = 12) -> Path:
    """Write three usable series and everything that gives a message, all full of marks."""
    for name, person in PEOPLE.items():
        for path in write_phantom(folder / person, seed=ord(name), slices=slices, size=96).rglob("*.dcm"):
            mark_header(path, person)
    nifti(folder / "sub-Wunderlich" / "ses-20190228" / "WUNDERLICH_ct.nii.gz", 7, place(at=(0, 0, 900)))
    image = nibabel.load(folder / "sub-Wunderlich" / "ses-20190228" / "WUNDERLICH_ct.nii.gz")
    image.header["descrip"], image.header["aux_file"] = b"Wunderlich 19470311", b"Oberammergau"
    nibabel.save(image, folder / "Wunderlich-header.nii.gz")
    dicom(folder / "Wunderlich-odd" / "ct", 12, patient="4711-0815", geometry=place(at=(0, 0, 2000)))
    mark_segments(seg_label(folder / "Wunderlich-odd" / "Wunderlich.dcm", place(at=(0, 0, 2000))))
    nifti(folder / "Wunderlich-nine" / "ct.nii.gz", 13, place(at=(0, 0, 3000)))
    nine = body(13)[1]
    nine[0, 0, :3] = 9
    write_volume(folder / "Wunderlich-nine" / "Wunderlich label.nii.gz", nine, place(at=(0, 0, 3000)))
    for path in dicom(folder / "Wunderlich-cut", 14, patient="Wunderlich", geometry=place(at=(0, 0, 4000)))[2:4]:
        mark_header(path, "Wunderlich")
        truncate(path)
    truncate(nifti(folder / "cut" / "19470311.nii.gz", 15))
    nifti_label(folder / "Wunderlich's lost label" / "l.nii.gz", place(at=(0, 0, 5000)))
    (folder / "Wunderlich.txt").write_text("Wunderlich, 19470311")
    for path in dicom(folder / "Wunderlich-dose", 16, patient="Wunderlich")[:1]:
        other = pydicom.dcmread(path)
        other.Modality, other.SOPClassUID = "WUNDERLICH", "1.2.840.10008.5.1.4.1.1.481.2"
        other.save_as(path)
    (folder / "patients.csv").write_text(
        "series,patient,split\n"
        + "".join(
            f'"{PEOPLE[name]}",Wunderlich {name},{split}\n'
            for name, split in zip("abc", ("train", "validation", "test"), strict=True)
        )
    )
    return folder


def mark_header(path: Path, person: str) -> None:
    data = pydicom.dcmread(path)
    data.SpecificCharacterSet = "ISO_IR 192"
    data.PatientName, data.PatientID, data.PatientBirthDate = person, person, "19470311"
    data.StudyDate = data.SeriesDate = data.ContentDate = "20190228"
    data.InstitutionName, data.ReferringPhysicianName = "Oberammergau", "Wunderlich^Doctor"
    data.StudyDescription = data.SeriesDescription = data.PatientComments = f"Wunderlich in Oberammergau, {person}"
    data.save_as(path)


def mark_segments(path: Path) -> None:
    data = pydicom.dcmread(path)
    for segment in data.SegmentSequence:
        segment.SegmentLabel = f"Wunderlich's implant {segment.SegmentNumber}"
    data.save_as(path)


def found_in(data: bytes) -> list[str]:
    forms = {form for mark in MARKS for form in (mark, json.dumps(mark)[1:-1], mark.replace("Ü", "&Uuml;"))}
    return sorted(form for form in forms if form.encode() in data)


def leaks_of_bucket(workspace: Workspace) -> dict[str, list[str]]:
    keys = [item.key for item in workspace.store.list() if not item.key.startswith("raw/")]
    assert keys
    found = {key: found_in(key.encode() + b"\n" + workspace.store.read(key)) for key in keys}
    return {key: marks for key, marks in found.items() if marks}


def leaks_of_folder(folder: Path) -> dict[str, list[str]]:
    files = [path for path in folder.rglob("*") if path.is_file() and "objects" not in path.parts]
    found = {str(path): found_in(str(path.relative_to(folder)).encode() + path.read_bytes()) for path in files}
    return {name: marks for name, marks in found.items() if marks}


def test_pull_and_prepare_leave_no_mark_and_people_read_names(
    workspace: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        upload_folder(workspace.store, plant(tmp_path / "data"), "raw/")
        pulled = pull_bucket(workspace, StoreSettings(), PullSettings())
        made = prepare_dataset(workspace, pulled.catalogue_uri, PrepareSettings(parallel=1))
    assert made.series == {"train": 1, "validation": 1, "test": 1}
    assert leaks_of_bucket(workspace) == {}
    assert leaks_of_folder(workspace.folder) == {}
    out, err = capfd.readouterr()
    assert found_in(f"{caplog.text}{out}{err}{pulled}{made}".encode()) == []
    readable = reader_of(workspace)
    told = "\n".join(readable(f"{problem.source}: {problem.reason}") for problem in made.problems)
    for path in (
        "Wunderlich-odd/ct: Wunderlich-odd/Wunderlich.dcm: label values 1 (implant 1)",
        "Wunderlich-nine/ct.nii.gz: Wunderlich-nine/Wunderlich label.nii.gz: label values",
        "sub-Wunderlich/ses-20190228/WUNDERLICH_ct.nii.gz",
        "cut/19470311.nii.gz",
        "Wunderlich's lost label/l.nii.gz",
        "«WUNDERLICH»",
    ):
        assert path in told, path


def test_errors_of_pull_and_prepare_hold_no_mark(workspace: Workspace, tmp_path: Path) -> None:
    nifti_label(tmp_path / "data" / "Wunderlich" / "label.nii.gz")
    upload_folder(workspace.store, tmp_path / "data", "raw/")
    with pytest.raises(Exception, match="first problem: ") as caught:
        pull_bucket(workspace, StoreSettings(), PullSettings())
    assert found_in(str(caught.value).encode()) == []
    assert "Wunderlich/label.nii.gz" in reader_of(workspace)(str(caught.value))


def test_an_evaluation_of_a_folder_holds_no_mark(
    model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    data = plant(tmp_path / "data", slices=4)
    with caplog.at_level(logging.DEBUG):
        result = evaluate_folder(
            model_folder, data, tmp_path / "out", EvaluateSettings(bootstrap=100), PrepareSettings(), home
        )
    assert len(result.series) == 3
    assert leaks_of_folder(tmp_path / "out") == {}
    assert found_in(caplog.text.encode()) == []
    kept = sorted(home.rglob("*"))
    assert [path.stat().st_mode & 0o77 for path in kept] == [0] * len(kept)
    assert any("Wunderlich" in path.read_text() for path in kept if path.is_file())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_step_of_the_pipeline_carries_a_mark_out_of_the_raw_data(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    as_on_a_cluster(workspace, monkeypatch)
    upload_folder(workspace.store, plant(tmp_path / "data"), "raw/")
    lines = [line for line in overrides(workspace, tmp_path) if not line.startswith("prepare.splits")]
    settings = configure.python_func(overrides=lines)
    (tmp_path / "artifacts").mkdir()
    artifacts: list[Any] = []

    def artifact(kind: type, name: str) -> Any:
        artifacts.append(kind(name=name, uri=str(tmp_path / "artifacts" / name), metadata={}))
        return artifacts[-1]

    with caplog.at_level(logging.DEBUG):
        pulled = pull.python_func(settings=settings)
        made = prepare.python_func(settings, pulled[1], pulled[2], "v", artifact(dsl.Dataset, "dataset"))
        trained = train.python_func(
            settings, made[0], "v", artifact(dsl.Model, "model"), artifact(dsl.Metrics, "training")
        )
        outputs = (
            artifact(dsl.Metrics, "metrics"),
            artifact(dsl.ClassificationMetrics, "confusion"),
            artifact(dsl.Markdown, "summary"),
            artifact(dsl.HTML, "report"),
            artifact(dsl.Dataset, "tables"),
        )
        measured = evaluate.python_func(settings, trained[0], made[0], "v", *outputs)
        decision = artifact(dsl.Markdown, "decision")
        published = publish.python_func(settings, trained[0], measured[0], made[0], "v", decision)
    assert published[1]
    assert leaks_of_bucket(workspace) == {}
    assert leaks_of_folder(workspace.folder) == {}
    assert leaks_of_folder(tmp_path / "artifacts") == {}
    said = [caplog.text, *(str(item.metadata) for item in artifacts), str((pulled, made, trained, measured, published))]
    assert found_in("\n".join(said).encode()) == []
