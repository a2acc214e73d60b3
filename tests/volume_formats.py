"""One volume or label in each format, with headers written by hand: what is read of them needs no library of ours."""

import bz2
import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boneseg.geometry import Geometry

NRRD_TYPES = {"i2": "short", "u1": "uchar", "u2": "ushort", "i4": "int", "f4": "float", "f8": "double", "i1": "int8"}
MET_TYPES = {"i2": "MET_SHORT", "u1": "MET_UCHAR", "u2": "MET_USHORT", "i4": "MET_INT", "f4": "MET_FLOAT"}
PACK = {"raw": bytes, "gzip": lambda data: gzip.compress(data, mtime=0), "bzip2": bz2.compress}
TAGS = "TerminologyEntry:Segmentation category and type - 3D Slicer General Anatomy list~{}|"


def code_of(array: NDArray[np.generic]) -> str:
    return array.dtype.str[1:]


def vectors(affine: NDArray[np.float64]) -> list[str]:
    """Return the steps along column, row and slice as NRRD writes them."""
    return [f"({','.join(repr(float(value)) for value in affine[:3, axis])})" for axis in (2, 1, 0)]


def nrrd_header(
    array: NDArray[np.generic],
    geometry: Geometry,
    encoding: str = "raw",
    fields: Mapping[str, str | None] = {},
    keys: Mapping[str, str] = {},
) -> bytes:
    """Return a header without its blank line; (slice, row, column) or, in layers, (slice, row, column, layer)."""
    layers = array.shape[3:]
    origin = ",".join(repr(float(value)) for value in geometry.affine[:3, 3])
    written: dict[str, str | None] = {
        "type": NRRD_TYPES[code_of(array)],
        "dimension": str(array.ndim),
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, (*layers, *array.shape[2::-1]))),
        "space directions": " ".join((["none"] if layers else []) + vectors(geometry.affine)),
        "kinds": " ".join((["list"] if layers else []) + ["domain"] * 3),
        "endian": "little",
        "encoding": encoding,
        "space origin": f"({origin})",
        **fields,
    }
    lines = ["NRRD0004", "# written by hand"]
    lines += [f"{name}: {value}" for name, value in written.items() if value is not None]
    lines += [f"{name}:={value}" for name, value in keys.items()]
    return ("\n".join(lines) + "\n").encode()


def nrrd(
    path: Path,
    array: NDArray[np.generic],
    geometry: Geometry,
    encoding: str = "raw",
    fields: Mapping[str, str | None] = {},
    keys: Mapping[str, str] = {},
) -> Path:
    """Write a volume in one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = PACK[encoding](np.ascontiguousarray(array).tobytes())
    path.write_bytes(nrrd_header(array, geometry, encoding, fields, keys) + b"\n" + body)
    return path


def nhdr(
    path: Path, array: NDArray[np.generic], geometry: Geometry, encoding: str = "raw", data: str | None = None
) -> Path:
    """Write a header, and its voxels beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = data or f"{path.stem}.raw{'.gz' if encoding == 'gzip' else ''}"
    path.write_bytes(nrrd_header(array, geometry, encoding, {"data file": name}))
    (path.parent / name).write_bytes(PACK[encoding](np.ascontiguousarray(array).tobytes()))
    return path


def metaimage_header(
    array: NDArray[np.generic], geometry: Geometry, data: str, fields: Mapping[str, str | None] = {}
) -> bytes:
    steps = geometry.affine[:3, [2, 1, 0]]
    edges = np.linalg.norm(steps, axis=0)
    written: dict[str, str | None] = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": " ".join(repr(float(value)) for value in (steps / edges).T.ravel()),
        "Offset": " ".join(repr(float(value)) for value in geometry.affine[:3, 3]),
        "CenterOfRotation": "0 0 0",
        "AnatomicalOrientation": "RAI",
        "ElementSpacing": " ".join(repr(float(value)) for value in edges),
        "DimSize": " ".join(map(str, array.shape[::-1])),
        "ElementType": MET_TYPES[code_of(array)],
        **fields,
        "ElementDataFile": data,
    }
    return "".join(f"{name} = {value}\n" for name, value in written.items() if value is not None).encode()


def mha(
    path: Path,
    array: NDArray[np.generic],
    geometry: Geometry,
    fields: Mapping[str, str | None] = {},
    packed: bool = False,
) -> Path:
    """Write a volume in one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = np.ascontiguousarray(array).tobytes()
    if packed:
        body = zlib.compress(body)
        fields = {"CompressedData": "True", "CompressedDataSize": str(len(body)), **fields}
    path.write_bytes(metaimage_header(array, geometry, "LOCAL", fields) + body)
    return path


def mhd(path: Path, array: NDArray[np.generic], geometry: Geometry, packed: bool = False) -> Path:
    """Write a header, and its voxels beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body, name = np.ascontiguousarray(array).tobytes(), f"{path.stem}.{'zraw' if packed else 'raw'}"
    fields: dict[str, str | None] = {"CompressedData": "True"} if packed else {}
    path.write_bytes(metaimage_header(array, geometry, name, fields))
    (path.parent / name).write_bytes(zlib.compress(body) if packed else body)
    return path


def slicer_keys(segments: Sequence[tuple[str, int, int]], tags: Sequence[str] = ()) -> dict[str, str]:
    """Return the key/value pairs of a segmentation whose segments have a name, a layer and a value."""
    keys = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|Closed surface|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for number, (name, layer, value) in enumerate(segments):
        prefix = f"Segment{number}_"
        keys |= {f"{prefix}ID": f"Segment_{number}", f"{prefix}Name": name, f"{prefix}Color": "0.5 0.7 0.2"}
        keys |= {f"{prefix}Layer": str(layer), f"{prefix}LabelValue": str(value), f"{prefix}Extent": "0 1 0 1 0 1"}
        keys[f"{prefix}Tags"] = TAGS.format(tags[number]) if number < len(tags) else "|"
    return keys


def part_of(
    array: NDArray[np.generic], geometry: Geometry, cut: Sequence[slice]
) -> tuple[NDArray[np.generic], Geometry]:
    """Return some slices, rows and columns, and where they lie."""
    part, affine = array[tuple(cut)], geometry.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array([one.start or 0 for one in cut], dtype=np.float64)
    return part, Geometry((part.shape[0], part.shape[1], part.shape[2]), affine)
