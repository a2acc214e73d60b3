"""Folders as other programs of the field lay them out, unchanged; tables that say what label values mean."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.segmentation_write import write_segmentation
from boneseg.errors import LabelError
from boneseg.ingest.label_file import local_file
from boneseg.ingest.label_names import read_names
from boneseg.ingest.local import local_series
from boneseg.ingest.pull import fingerprint
from boneseg.ingest.read import LabelledSeries, read_labelled
from boneseg.nifti import write_volume
from boneseg.scheme import BONE_SCHEME, BUILT_IN, LabelScheme
from boneseg.scheme.record import LabelClass, Role
from boneseg.settings.schema import PrepareSettings
from tests.ct_files import place
from tests.ingest.test_by_bone import BOXES, SHAPE, meanings, truth

PELVIS = BUILT_IN["pelvis"]
NUMBERS = {"femur_right": 1, "femur_left": 2, "sacrum": 3, "hip_right": 4, "hip_left": 5, "spine": 6}
"""Not the order of the scheme: only the names tell."""


def numbered(numbers: dict[str, int] = NUMBERS) -> NDArray[np.uint8]:
    label = np.zeros(SHAPE, dtype=np.uint8)
    for name, number in numbers.items():
        label[truth(name.replace("_", " ")) > 0] = number
    return label


def ct(path: Path, seed: int = 0) -> None:
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[:, 4:28, 4:28] = 40
    hu[truth() > 0] = 700
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-20, 20, SHAPE)
    write_volume(path, (hu + noise).astype(np.int16), place(SHAPE))


def mask(path: Path, values: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, values, place(SHAPE))


def read_all(folder: Path, scheme: LabelScheme = PELVIS) -> list[LabelledSeries]:
    rows, problems = local_series(folder, scheme=scheme)
    assert rows
    assert all(row.label for row in rows), problems
    return [read_labelled(local_file, row, PrepareSettings(), scheme) for row in rows]


def assert_bones(series: LabelledSeries, expected: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(np.where(series.label > 1, series.label, 0), expected)
    assert not series.labelling.sets


def nnunet(folder: Path, labels: dict[str, object]) -> Path:
    for number in range(2):
        ct(folder / "imagesTr" / f"femur_{number:03d}_0000.nii.gz", number)
        mask(folder / "labelsTr" / f"femur_{number:03d}.nii.gz", numbered())
    about = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


def test_a_raw_dataset_of_nnunet(tmp_path: Path) -> None:
    folder = nnunet(tmp_path / "Dataset001_Pelvis", {"background": 0, **NUMBERS})
    for series in read_all(folder):
        assert_bones(series, truth())
    for series in read_all(folder, BONE_SCHEME):
        np.testing.assert_array_equal(series.label == 2, truth() > 0)


def test_a_task_of_the_decathlon(tmp_path: Path) -> None:
    """Values are keys; images and labels have the same name; hidden files of another system lie about."""
    ct(tmp_path / "imagesTr" / "pelvis_001.nii.gz")
    mask(tmp_path / "labelsTr" / "pelvis_001.nii.gz", numbered())
    labels = {"0": "background", **{str(number): name for name, number in NUMBERS.items()}}
    pairs = [{"image": "./imagesTr/pelvis_001.nii.gz", "label": "./labelsTr/pelvis_001.nii.gz"}]
    about = {"modality": {"0": "CT"}, "tensorImageSize": "3D", "labels": labels, "training": pairs, "test": []}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    (tmp_path / "labelsTr" / "._pelvis_001.nii.gz").write_bytes(b"\0\5\x16\7" + bytes(200))
    (series,) = read_all(tmp_path)
    assert_bones(series, truth())


def test_regions_of_nnunet_go_by_the_smallest(tmp_path: Path) -> None:
    folder = nnunet(tmp_path, {"background": 0, "bones": [1, 2, 3, 4, 5, 6], **{n: [v] for n, v in NUMBERS.items()}})
    for series in read_all(folder):
        assert_bones(series, truth())


@pytest.mark.parametrize("scheme", [PELVIS, BONE_SCHEME])
def test_what_nnunet_ignores_may_be_anything(tmp_path: Path, scheme: LabelScheme) -> None:
    folder = nnunet(tmp_path, {"background": 0, **NUMBERS, "ignore": 7})
    label = numbered()
    label[4:] = 7
    mask(folder / "labelsTr" / "femur_000.nii.gz", label)
    series, _ = read_all(folder, scheme)
    assert set(meanings(series)[label == 7]) == {frozenset(scheme.names)}
    np.testing.assert_array_equal(np.isin(series.label, series.labelling.bony), (truth() > 0) & (label != 7))


def test_a_structure_that_a_table_declares_and_nobody_drew_is_not_there(tmp_path: Path) -> None:
    """The first series shows no femora: that they are declared tells it from a label which is silent of them."""
    folder = nnunet(tmp_path, {"background": 0, **NUMBERS})
    some = {name: number for name, number in NUMBERS.items() if not name.startswith("femur")}
    mask(folder / "labelsTr" / "femur_000.nii.gz", numbered(some))
    series, _ = read_all(folder)
    assert not series.labelling.sets
    silent = {"background": 0, **some}
    (folder / "dataset.json").write_text(json.dumps({"labels": silent}))
    mask(folder / "labelsTr" / "femur_001.nii.gz", numbered(some))
    series, _ = read_all(folder)
    assert any("says nothing of femur left, femur right" in warning for warning in series.warnings)


def test_a_subject_folder_of_totalsegmentator(tmp_path: Path) -> None:
    """One file a structure, many of them empty, others no bone; a table about the patients beside the folders."""
    folder = tmp_path / "s0001"
    ct(folder / "ct.nii.gz")
    for name in BOXES:
        called = "vertebrae_L3" if name == "spine" else name.replace(" ", "_")
        mask(folder / "segmentations" / f"{called}.nii.gz", (truth(name) > 0).astype(np.uint8))
    for name in ("vertebrae_L4", "vertebrae_T1", "rib_left_1", "liver", "heart"):
        mask(folder / "segmentations" / f"{name}.nii.gz", np.zeros(SHAPE, dtype=np.uint8))
    soft = np.zeros(SHAPE, dtype=np.uint8)
    soft[2, 6:8, 6:8] = 1
    mask(folder / "segmentations" / "gluteus_maximus_left.nii.gz", soft)
    (tmp_path / "meta.csv").write_text("image_id;age;gender;split\ns0001;55;m;train\n")
    (series,) = read_all(tmp_path)
    assert_bones(series, truth())


def test_empty_masks_of_totalsegmentator_say_that_a_bone_is_not_there(tmp_path: Path) -> None:
    ct(tmp_path / "s0001" / "ct.nii.gz")
    drawn = [name for name in BOXES if not name.startswith("femur")]
    for name in drawn:
        mask(tmp_path / "s0001" / "segmentations" / f"{name.replace(' ', '_')}.nii.gz", (truth(name) > 0).astype("u1"))
    (series,) = read_all(tmp_path)
    assert any("says nothing of femur left, femur right" in warning for warning in series.warnings)
    for side in ("left", "right"):
        mask(tmp_path / "s0001" / "segmentations" / f"femur_{side}.nii.gz", np.zeros(SHAPE, dtype=np.uint8))
    (series,) = read_all(tmp_path)
    assert_bones(series, truth(*drawn))


def test_a_tree_like_bids(tmp_path: Path) -> None:
    for subject in ("01", "02"):
        ct(tmp_path / f"sub-{subject}" / "ct" / f"sub-{subject}_ct.nii.gz", int(subject))
        labels = tmp_path / "derivatives" / "manual" / f"sub-{subject}" / "ct"
        mask(labels / f"sub-{subject}_space-orig_dseg.nii.gz", numbered())
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "pelves", "BIDSVersion": "1.9.0"}))
    rows = "".join(f"{number}\t{name}\n" for name, number in NUMBERS.items())
    (tmp_path / "derivatives" / "manual" / "dseg.tsv").write_text(f"index\tname\n{rows}")
    found = read_all(tmp_path)
    assert len(found) == 2
    for series in found:
        assert_bones(series, truth())


def test_a_table_of_the_labels_own_name_stands_before_a_common_one(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        ct(tmp_path / name / "ct.nii.gz", number)
    mask(tmp_path / "a" / "seg.nii.gz", numbered())
    swapped = {"femur_left": 1, "femur_right": 2, "sacrum": 3, "hip_left": 4, "hip_right": 5, "spine": 6}
    mask(tmp_path / "b" / "seg.nii.gz", numbered(swapped))
    colours = "".join(f"{number} {name} 10 20 30 255\n" for name, number in NUMBERS.items())
    (tmp_path / "labels.ctbl").write_text("# Color table\n0 background 0 0 0 0\n" + colours)
    (tmp_path / "b" / "seg.json").write_text(json.dumps({str(number): name for name, number in swapped.items()}))
    for series in read_all(tmp_path):
        assert_bones(series, truth())


def test_two_tables_that_disagree_settle_nothing(tmp_path: Path) -> None:
    folder = nnunet(tmp_path, {"background": 0, **{name: number + 10 for name, number in NUMBERS.items()}})
    (folder / "dataset.json").write_text(json.dumps({"labels": {"femur_left": 30, "femur_right": 31}}))
    (folder / "labels.json").write_text(json.dumps({"30": "hip left", "31": "hip right"}))
    label = np.where(numbered() > 0, numbered() % 2 + 30, 0).astype(np.uint8)
    for number in range(2):
        mask(folder / "labelsTr" / f"femur_{number:03d}.nii.gz", label)
    with pytest.raises(LabelError, match=r"femur_000.nii.gz: label values 30, 31 are unknown"):
        read_all(folder)


def test_a_name_that_the_scheme_does_not_know_is_not_taken_by_its_number(tmp_path: Path) -> None:
    names = dict.fromkeys(("screws", "Reader X"), 0) | {"screws": 1, "Reader X": 2}
    folder = nnunet(tmp_path, {"background": 0, **names, "femur_left": 3})
    label = np.minimum(numbered(), 3).astype(np.uint8)
    for number in range(2):
        mask(folder / "labelsTr" / f"femur_{number:03d}.nii.gz", label)
    with pytest.raises(LabelError, match=r"label values 1, 2 are unknown in scheme pelvis.*prepare.label_map"):
        read_all(folder)


def test_another_table_is_another_label(tmp_path: Path) -> None:
    """Names decide what a label says: what is made of it must be made anew when they change."""
    folder = nnunet(tmp_path, {"background": 0, **NUMBERS})
    before, _ = local_series(folder)
    nnunet(folder, {"background": 0, **NUMBERS, "hip_left": 4, "hip_right": 5})
    after, _ = local_series(folder)
    contents = [[row.label.content for row in rows if row.label] for rows in (before, after)]
    assert not set(contents[0]) & set(contents[1])
    assert fingerprint(before) != fingerprint(after)


def test_names_in_the_words_of_a_scheme_of_ones_own(tmp_path: Path) -> None:
    """Files ``case_rad_L`` and ``case_rad_R``: only the scheme knows that these are bones."""

    def bone(side: str, other: str) -> LabelClass:
        short = {"left": "L", "right": "R"}[side]
        return LabelClass(name=f"radi {side}", role=Role.BONE, partner=f"radi {other}", calls=(f"rad {short}",))

    classes = (*PELVIS.classes[:2], bone("left", "right"), bone("right", "left"))
    scheme = LabelScheme(name="arms", classes=classes)
    ct(tmp_path / "case.nii.gz")
    for short, name in (("L", "hip left"), ("R", "hip right")):
        mask(tmp_path / f"case_rad_{short}.nii.gz", (truth(name) > 0).astype(np.uint8))
    (series,) = read_all(tmp_path, scheme)
    assert_bones(series, truth("hip left", "hip right"))
    rows, problems = local_series(tmp_path)
    assert rows[0].label is None
    assert any("do not tell which bone" in problem.reason for problem in problems)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.json", '{"labels": {"background": 0, "femur": 1}}', {1: "femur"}),
        ("a.json", '{"labels": {"0": "background", "2": "femur"}}', {2: "femur"}),
        ("mask.json", '{"scheme": "x", "classes": [{"value": 0, "name": "b"}, {"value": 3, "name": "c"}]}', {3: "c"}),
        ("a.tsv", "name\tindex\nfemur left\t7\nx\tno\n", {7: "femur left"}),
        ("a.ctbl", "# c\n0 a 0 0 0 0\n1 femur left 255 0 0 255\n", {1: "femur left"}),
        ("a.txt", '# s\n 0 0 0 0 0 0 0 "Clear Label"\n 1 255 0 0 1 1 1 "Femur L"\n', {1: "Femur L"}),
        ("a.json", '{"labels": {"femur": "one"}}', None),
        ("a.json", '{"labels": {"femur": true}}', None),
        ("a.json", "[" * 100_000, None),
        ("a.json", '{"a": ' * 50_000, None),
        ("a.json", '{"labels": []}', None),
        ("a.json", "{}", None),
        ("a.txt", "a text\n1 2 3\n", None),
        ("a.tsv", "index\tname\n", None),
        ("a.bin", "\0\1\2", None),
        ("a.txt", "", None),
    ],
)
def test_a_table_is_known_by_its_content(tmp_path: Path, name: str, text: str, expected: object) -> None:
    (tmp_path / name).write_text(text)
    assert read_names(tmp_path / name) == expected


@pytest.mark.parametrize("files", [("mask.nii.gz", "mask.json"), ("mask.nii.gz",)])
@pytest.mark.parametrize("like", [False, True])
def test_masks_that_boneseg_wrote_are_labels_with_their_names(
    tmp_path: Path, files: tuple[str, ...], like: bool
) -> None:
    """Without them 2 would be the right hip, by the numbers that files have; also where some classes do not occur."""
    from boneseg.predict.masks import write_masks

    ct(tmp_path / "case" / "ct.nii.gz")
    drawn = truth("hip left", "hip right", "femur left", "sacrum")
    series = tmp_path / "case" / "ct.nii.gz" if like else None
    write_masks(tmp_path / "out", drawn, place(SHAPE), like=series, scheme=PELVIS)
    for name in files:
        shutil.copy(tmp_path / "out" / name, tmp_path / "case" / name)
    (found,) = read_all(tmp_path / "case")
    assert_bones(found, drawn)


@pytest.mark.parametrize("scheme", [PELVIS, BONE_SCHEME])
def test_a_seg_without_frames_at_the_ends_is_the_same_label_where_it_names_all_images(
    tmp_path: Path, scheme: LabelScheme
) -> None:
    """Most writers leave empty frames out; the header still lists every image of the series."""
    drawn = truth()
    drawn[[0, 5]] = 0
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[:, 4:28, 4:28] = 40
    hu[drawn > 0] = 700
    hu += np.random.default_rng(0).integers(-20, 20, SHAPE).astype(np.int16)
    files = write_ct_series(tmp_path / "a", hu, place(SHAPE), identity="a", patient_id="P")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    write_segmentation(tmp_path / "a" / "seg.dcm", drawn, place(SHAPE), files, scheme=PELVIS)
    write_volume(tmp_path / "b" / "bones.nii.gz", np.where(drawn > 1, drawn - 1, 0).astype(np.uint8), place(SHAPE))
    names = {str(value - 1): name for value, name in enumerate(PELVIS.names) if value > 1}
    (tmp_path / "b" / "bones.json").write_text(json.dumps(names))
    (one,), (other,) = read_all(tmp_path / "a", scheme), read_all(tmp_path / "b", scheme)
    assert one.label.shape == SHAPE
    np.testing.assert_array_equal(one.label, other.label)
    write_segmentation(tmp_path / "a" / "seg.dcm", drawn, place(SHAPE), scheme=PELVIS)  # names no image
    (series,) = read_all(tmp_path / "a", scheme)
    assert series.label.shape == (4, *SHAPE[1:])
    assert any("covers 4 of 6 slices" in warning for warning in series.warnings)


@pytest.mark.parametrize("scheme", [PELVIS, BONE_SCHEME])
def test_names_in_the_header_of_totalsegmentators_one_file(tmp_path: Path, scheme: LabelScheme) -> None:
    """Its values are not those of the scheme; soft tissue is among them, and bones that are not in the picture."""
    numbers = {"hip_left": 77, "hip_right": 78, "femur_left": 75, "femur_right": 76, "sacrum": 25, "vertebrae_L3": 29}
    others = {"liver": 5, "vertebrae_L4": 28, "rib_left_1": 92, "skull": 91}
    ct(tmp_path / "ct.nii.gz")
    label = numbered({name.replace("vertebrae_L3", "spine"): number for name, number in numbers.items()})
    label[2, 6:8, 6:8] = 5
    mask(tmp_path / "all.nii.gz", label)
    rows = "".join(f'<Label Key="{key}" Red="1" Alpha="1">{name}</Label>' for name, key in (numbers | others).items())
    xml = f'<?xml version="1.0"?><CaretExtension><VolumeInformation><LabelTable>{rows}</LabelTable></VolumeInformation>'
    image = nib.load(tmp_path / "all.nii.gz")
    image.header.extensions.append(nib.nifti1.Nifti1Extension(0, f"{xml}</CaretExtension>".encode()))
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), tmp_path / "all.nii.gz")
    (series,) = read_all(tmp_path, scheme)
    if scheme is PELVIS:
        assert_bones(series, truth())
    else:
        np.testing.assert_array_equal(series.label == 2, truth() > 0)
