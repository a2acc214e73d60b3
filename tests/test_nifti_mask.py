"""A viewer lays the mask over its CT by the header: it must say the same, bit by bit."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from boneseg.errors import SeriesError
from boneseg.nifti_mask import write_mask_like

RNG = np.random.default_rng(0)
MASK = RNG.integers(0, 3, (5, 6, 7)).astype(np.uint8)


def affine(shear: float = 0.0) -> np.ndarray:
    turn = np.array(SimpleITK.Euler3DTransform((0, 0, 0), 0.1, -0.2, 0.3).GetMatrix()).reshape(3, 3)
    made = np.eye(4)
    made[:3, :3] = turn @ np.diag([0.7871, 0.7871, 2.5003])
    made[:3, 2] += shear * made[:3, 0]
    made[:3, 3] = (-117.3331, 20.125, -700.8)
    return made


def ct(path: Path, kind: type, codes: tuple[int, int], shear: float = 0.0, **fields: int) -> Path:
    image = kind(np.full((7, 6, 5), -1000, dtype=np.int16), None)
    if codes[0]:
        image.set_qform(affine(), codes[0])
    if codes[1]:
        image.set_sform(affine(shear) + 1e-3, codes[1])
    image.header["pixdim"][1:4] = (0.7871, 0.7871, 2.5003)
    for field, value in fields.items():
        image.header[field] = value
    nib.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 4), (1, 2), (0, 0), (3, 1)])
@pytest.mark.parametrize("shear", [0.0, 0.3])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_the_place_is_the_ct_s_own(
    tmp_path: Path, kind: type, codes: tuple[int, int], shear: float, ending: str
) -> None:
    path = ct(tmp_path / f"ct{ending}", kind, codes, shear, xyzt_units=2 | 8)
    write_mask_like(tmp_path / "mask.nii.gz", MASK, path)
    theirs, ours = nib.load(path), nib.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(ours.affine, theirs.affine)
    assert ours.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(ours.dataobj), MASK.transpose(2, 1, 0))
    assert type(ours) is type(theirs)
    for field in ("qform_code", "sform_code", "quatern_b", "qoffset_x", "srow_x", "srow_y", "srow_z"):
        assert np.array_equal(ours.header[field], theirs.header[field])
    assert np.array_equal(ours.header["pixdim"][:4], theirs.header["pixdim"][:4])
    assert ours.header.get_xyzt_units()[0] == "mm"


def test_a_big_endian_file_with_a_unit_of_its_own_and_a_fourth_axis(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_xyzt_units("micron")
    image = nib.Nifti1Image(np.zeros((7, 6, 5, 1), dtype=np.int16), affine(), header)
    nib.save(image, tmp_path / "ct.nii")
    write_mask_like(tmp_path / "mask.nii", MASK, tmp_path / "ct.nii")
    ours = nib.load(tmp_path / "mask.nii")
    assert np.array_equal(ours.affine, nib.load(tmp_path / "ct.nii").affine)
    assert ours.header.get_xyzt_units()[0] == "micron"
    assert ours.shape == (7, 6, 5)


def test_what_is_no_nifti_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "ct.nii").write_bytes(b"\0" * 600)
    with pytest.raises(SeriesError, match=r"ct\.nii"):
        write_mask_like(tmp_path / "mask.nii.gz", MASK, tmp_path / "ct.nii")
    assert [path.name for path in tmp_path.iterdir()] == ["ct.nii"]
