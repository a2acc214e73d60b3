"""Files in no format that is read are named by their content, with the fix."""

import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from boneseg.ingest.facts import Kind, inspect
from boneseg.ingest.formats import foreign_format
from boneseg.storage.catalogue import ObjectRef
from tests.ct_files import dicom, nifti

Damage = Callable[[bytes], bytes]


def packed(folder: Path, kind: str) -> bytes:
    slices, buffer = dicom(folder / "ct"), io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for path in slices:
                archive.write(path, path.name)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for path in slices:
                archive.add(path, path.name)
    return buffer.getvalue()


def content(folder: Path, kind: str) -> bytes:
    if kind in ("zip", "tar"):
        return packed(folder, kind)
    if kind in ("tar.gz", "dcm.gz"):
        return gzip.compress(packed(folder, "tar") if kind == "tar.gz" else dicom(folder / "ct")[0].read_bytes())
    if kind in ("nrrd.gz", "mha.gz"):
        path = folder / f"x.{kind.removesuffix('.gz')}"
        SimpleITK.WriteImage(SimpleITK.Image(4, 4, 4, SimpleITK.sitkInt16), str(path))
        return gzip.compress(path.read_bytes())
    if kind in ("png", "jpeg", "tiff", "bmp", "gif"):
        Image.new("L", (8, 8)).save(buffer := io.BytesIO(), kind)
        return buffer.getvalue()
    if kind in ("analyze", "pair"):
        make = nib.Nifti1Pair if kind == "pair" else nib.AnalyzeImage
        nib.save(make(np.zeros((4, 4, 4), dtype=np.int16), np.eye(4)), folder / "x.img")
        return (folder / "x.hdr").read_bytes()
    return {
        "json": b'{"StudyInstanceUID": "1.2.840.10008.1.2"}',
        "text": "Größe: klein".encode(),
        "latin": "Größe: klein".encode("latin-1"),
        "csv": b"patient;age\n1;70\n",
        "zeros": bytes(5000),
        "damaged gzip": b"\x1f\x8b\x08" + b"x" * 100,
        "other gzip": gzip.compress(b"\x01\x02\x03" * 100),
        "noise": np.random.default_rng(0).bytes(5000),
        "img": bytes(range(256)) * 4,
        "empty": b"",
    }[kind]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("zip", "a zip archive; unpack it"),
        ("tar", "a tar archive; unpack it"),
        ("tar.gz", "gzipped a tar archive.*unpack it"),
        ("dcm.gz", "gzipped a DICOM file; unpack it"),
        ("nrrd.gz", "gzipped an NRRD volume; unpack it"),
        ("mha.gz", "gzipped a MetaImage volume; unpack it"),
        ("png", "a PNG picture; pictures hold no HU"),
        ("jpeg", "a JPEG picture"),
        ("tiff", "a TIFF picture"),
        ("bmp", "a BMP picture"),
        ("gif", "a GIF picture"),
        ("analyze", "an Analyze 7.5 header.*convert both files"),
        ("pair", "the header of a NIfTI pair.*convert both files"),
        ("img", "one half of a .hdr/.img pair; convert both files"),
        ("json", "notes, tables and other texts"),
        ("text", "notes, tables and other texts"),
        ("latin", "notes, tables and other texts"),
        ("csv", "notes, tables and other texts"),
        ("zeros", "only zeros"),
        ("damaged gzip", "gzip data that are cut short within the first 600 bytes"),
        ("other gzip", "gzip data that are no NIfTI volume"),
        ("noise", "neither DICOM, NIfTI, NRRD nor MetaImage"),
        ("empty", "the file is empty"),
    ],
)
def test_a_foreign_file_is_named_with_the_fix(tmp_path: Path, kind: str, reason: str) -> None:
    path = tmp_path / "0123abcd"  # as in the cache
    path.write_bytes(content(tmp_path, kind))
    key = "raw/a/x.img" if kind == "img" else "raw/a/x"
    found = inspect(path, ObjectRef(key=key, size=1, etag="", sha256=""), b"")
    assert (found.kind, found.reason) == (Kind.IGNORED, foreign_format(path, key))
    assert re.match(reason, found.reason)


def test_a_volume_of_ours_is_no_foreign_format(tmp_path: Path) -> None:
    path = nifti(tmp_path / "ct.nii.gz")
    assert inspect(path, ObjectRef(key="raw/ct.nii.gz", size=1, etag="", sha256=""), b"").kind == Kind.VOLUME


@pytest.mark.parametrize(
    ("damage", "name", "reason"),
    [
        (lambda data: data[:344] + bytes(4) + data[348:], "x.nii", "mark, which belongs at byte 344, is damaged"),
        (lambda data: data[:60] + data[62:], "x.nii", "is at another place: bytes were lost or added"),
        (lambda data: data[:60] + b"abc" + data[60:], "x", "is at another place: bytes were lost or added"),
        (
            lambda data: gzip.compress(data[:60] + data[61:]),
            "x.nii.gz",
            "is at another place: bytes were lost or added",
        ),
        (lambda data: gzip.compress(data[:344] + bytes(4) + data[348:]), "x.nii.gz", "at byte 344, is damaged"),
        (lambda data: gzip.compress(gzip.compress(data)), "x.nii.gz", "gzipped gzip data; unpack it"),
        (lambda data: gzip.compress(data)[:100], "x.nii.gz", "gzip data that are cut short within the first 600 bytes"),
        (lambda data: gzip.compress(data)[:10] + b"\xff" * 900, "x.nii.gz", "gzip data that cannot be unpacked"),
    ],
)
def test_a_nifti_file_that_lost_its_mark_is_called_that(tmp_path: Path, damage: Damage, name: str, reason: str) -> None:
    image = nib.Nifti1Image(np.random.default_rng(0).integers(-1000, 1000, (8, 9, 10)).astype(np.int16), np.eye(4))
    path = tmp_path / "0123abcd"
    path.write_bytes(damage(image.to_bytes()))
    assert reason in foreign_format(path, f"raw/a/{name}")
    assert inspect(path, ObjectRef(key=f"raw/a/{name}", size=1, etag="", sha256=""), b"").kind == Kind.IGNORED
