"""What a file is that is in no format that is read, by its first bytes, and what to do about it."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path, PurePosixPath

UNKNOWN = "neither DICOM, NIfTI, NRRD nor MetaImage"
"""What is said of a file that has no mark."""
ZEROS = "only zeros"
_START_BYTES = 600
_TO_NIFTI = "convert it to one .nii.gz file"
_UNPACK = "unpack it"
_PICTURE = "pictures hold no HU; export the series as DICOM"
_PNG = f"{_PICTURE}, or give pull.png.spacing_mm where slices and masks are kept so"
_MARKS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"NRRD000", "an NRRD volume", _UNPACK),
    (0, b"ObjectType = Image", "a MetaImage volume", _UNPACK),
    (0, b"ObjectType", "a MetaIO object that is no image", ""),
    (0, b"\x00\x00\x01\x00\x00\x00", "an icon", _PICTURE),
    (0, b"PK\x03\x04", "a zip archive", _UNPACK),
    (0, b"PK\x05\x06", "an empty zip archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture", _PNG),
    (0, b"\xff\xd8\xff", "a JPEG picture", _PICTURE),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture", _PICTURE),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture", _PICTURE),
    (0, b"GIF8", "a GIF picture", _PICTURE),
    (0, b"BM", "a BMP picture", _PICTURE),
    (0, b"II*\x00", "a TIFF picture", _PICTURE),
    (0, b"MM\x00*", "a TIFF picture", _PICTURE),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (also MINC 2, MATLAB 7.3)", _TO_NIFTI),
    (0, b"CDF\x01", "a MINC 1 or NetCDF file", _TO_NIFTI),
    (0, b"MATLAB 5.0", "a MATLAB file", _TO_NIFTI),
    (0, b"\x93NUMPY", "a numpy array", f"it has no place in the patient; {_TO_NIFTI}"),
    (0, b"%PDF", "a PDF document", ""),
    (0, b"SQLite format 3", "a database", ""),
    (0, b"solid ", "an STL mesh", "meshes are not read; make a label volume of it"),
    (0, b"ply\n", "a PLY mesh", "meshes are not read; make a label volume of it"),
    (0, b"# vtk DataFile", "a VTK file", _TO_NIFTI),
    (0, b"CIFTI", "a CIFTI file", _TO_NIFTI),
)
_TEXTS = "notes, tables and other texts"
_PAIR = "one half of a .hdr/.img pair"
_TEXT_BYTES = bytes(set(range(32, 127)) | {9, 10, 12, 13, 27})


def foreign_format(path: Path, name: str) -> str:
    """Say what a file is that is in no format that is read, with the fix.

    Args:
        path: the file.
        name: its name or key, which counts only where the content has no mark: voxels of a pair have none.

    Returns:
        A clause such as "a zip archive; unpack it"; never empty.
    """
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if not start:
        return "the file is empty"
    if start[:2] == b"\x1f\x8b":
        return _gzipped(path, PurePosixPath(name).name.lower())
    name = PurePosixPath(name).name.lower()
    return _marked(start, name) or _by_name(name) or _text(start) or UNKNOWN


def _marked(start: bytes, name: str) -> str:
    """Recognise what has a mark, or had one by its name: a NIfTI volume."""
    sized = len(start) >= 348 and 348 in struct.unpack("<i", start[:4]) + struct.unpack(">i", start[:4])
    moved = b"n+1\0" in start[300:400]
    if moved or (sized and name.endswith((".nii", ".nii.gz"))):
        where = "at another place: bytes were lost or added before it" if moved else "damaged"
        return f"a NIfTI volume whose mark, which belongs at byte 344, is {where}; copy it again or convert it again"
    return _known(start)


def _known(start: bytes) -> str:
    if pair := _pair(start):
        return pair
    if len(start) == _START_BYTES and not start.strip(b"\0"):
        return ZEROS
    for place, mark, what, fix in _MARKS:
        if start[place : place + len(mark)] == mark:
            return f"{what}; {fix}" if fix else what
    return ""


def _pair(start: bytes) -> str:
    """Recognise the header of two files: NIfTI says so, Analyze 7.5 has the same size and no mark."""
    if start[344:348] == b"ni1\0" or start[4:8] == b"ni2\0":
        return f"the header of a NIfTI pair (.hdr/.img); {_convert_pair()}"
    if len(start) >= 348 and 348 in struct.unpack("<i", start[:4]) + struct.unpack(">i", start[:4]):
        return f"an Analyze 7.5 header (.hdr/.img), which does not tell left from right; {_convert_pair()}"
    return ""


def _convert_pair() -> str:
    return "convert both files to one .nii.gz file"


def _gzipped(path: Path, name: str) -> str:
    try:
        with gzip.open(path) as stream:
            start = stream.read(_START_BYTES)
    except EOFError:
        return f"gzip data that are cut short within the first {_START_BYTES} bytes that they unpack to"
    except zlib.error:
        return "gzip data that cannot be unpacked, damaged near their start"
    except OSError:
        return "gzip data whose own header or check sum is damaged"
    if start[:3] == b"\x00\x00\x00" and path.suffix == ".mgz":
        return f"a FreeSurfer volume; {_TO_NIFTI}"
    inside = _marked(start, name) or ("a DICOM file" if start[128:132] == b"DICM" else "")
    if start[:2] == b"\x1f\x8b":
        inside = "gzip data"
    if inside.startswith("a NIfTI volume"):
        return inside
    inside = inside.removeprefix("the file ").removesuffix(f"; {_UNPACK}")
    return f"gzipped {inside}; {_UNPACK}" if inside else "gzip data that are no NIfTI volume"


def _by_name(name: str) -> str:
    if name.endswith((".img", ".hdr")):
        return f"{_PAIR}; {_convert_pair()}"
    if name.endswith((".raw", ".zraw")):
        return "voxels without a header; add the .mhd or .nhdr file that names this one"
    if name.endswith((".mgh", ".mgz")):
        return f"a FreeSurfer volume; {_TO_NIFTI}"
    return ""


def _text(start: bytes) -> str:
    """Recognise text of any language, in UTF-8 or UTF-16."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _TEXTS
    try:
        start.decode()
    except UnicodeDecodeError as error:
        if error.end < len(start) - 3:  # otherwise only the last letter is cut
            return _TEXTS if not start.translate(None, _TEXT_BYTES + bytes(range(0xA0, 0x100))) else ""
    return "" if b"\0" in start else _TEXTS
