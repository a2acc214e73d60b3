import os
from pathlib import Path

import pytest

from boneseg.geometry import axial
from boneseg.predict.names import folder_names
from boneseg.storage.catalogue import FileKind, GeometryRecord, ObjectRef, SeriesRow


def row(source: str, series: str = "0123456789abcdef", key: str = "k") -> SeriesRow:
    return SeriesRow(
        series=series,
        source=source,
        kind=FileKind.NIFTI,
        objects=(ObjectRef(key=key, size=0, etag="", sha256=""),),
        patient="p",
        study="s",
        modality="CT",
        geometry=GeometryRecord.of(axial((2, 2, 2), (1, 1, 1))),
        hu_range=(0, 1),
        label=None,
    )


def test_a_folder_is_called_as_its_series() -> None:
    sources = ["a/ct", "b.nii.gz", "c/d.nii", "e/.gz", "x.dcm"]
    assert folder_names([row(source) for source in sources], Path()) == ["a/ct", "b", "c/d", "e/.gz", "x"]


@pytest.mark.parametrize(
    "sources",
    [
        ("a.nii", "a.nii.gz", "a"),
        ("CT", "ct", "Ct"),
        ("\u00e9", "e\u0301"),
        ("a", "a", "a-01234567"),
        ("x" * 250, "x" * 249 + "y"),
        ("deep/" * 300 + "a", "deep/" * 300 + "b", "deep/" * 299 + "a"),
    ],
)
def test_two_series_never_share_a_folder(sources: tuple[str, ...]) -> None:
    rows = [row(source, key=str(number)) for number, source in enumerate(sources)]
    names = folder_names(rows, Path("/data"))
    assert len({name.casefold() for name in names}) == len(sources)
    assert names == folder_names(rows, Path("/data"))
    for name in names:
        assert len(name.encode()) < 1100
        assert all(len(part.encode()) <= 255 for part in name.split("/"))


@pytest.mark.parametrize("source", ["..", "../../etc", "/etc/passwd", "a/../../b", "./.", ".", ""])
def test_no_name_leads_out_of_the_output(source: str, tmp_path: Path) -> None:
    (name,) = folder_names([row(source)], tmp_path / "..")
    inside = Path(os.path.normpath(tmp_path / "out" / name))
    assert inside != tmp_path / "out"
    assert inside.is_relative_to(tmp_path / "out")


def test_the_root_of_the_file_system_has_a_name_too() -> None:
    assert folder_names([row(".")], Path("/")) == ["series"]


def test_a_series_called_as_a_mask_does_not_take_the_mask_s_place() -> None:
    names = folder_names([row("a/mask.dcm"), row("a", key="b"), row("a/MASK.nii.gz")], Path())
    assert names[1] == "a"
    assert not {name.casefold() for name in names} & {"a/mask.dcm", "a/mask.nii.gz"}
