"""The process that decodes compressed pixels: decoders in C may end it on damaged data, but not the process that asks.

It reads requests from its input, one JSON line each, and writes for each frame one JSON line and the pixels, or one
line with the error. It imports nothing of boneseg, so that it starts quickly.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import struct
import sys
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

_RLE_PADDING = 2
_JPEG_2000 = b"\xff\x4f\xff\x51"
_RLE = "1.2.840.10008.1.2.5"
_SPARE_BYTES = 192 << 20  # what threads and libraries map and hardly use


def main() -> None:
    """Serve until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks ends this process, by closing its input
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries that print must not disturb the replies
    import pydicom.config

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    replies.write(b'{"shape": [0], "dtype": "u1"}\n')  # ready
    replies.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _limit_memory(request["memory"])
        try:
            for array in _checked(request["path"], request["frames"]):
                head = {"dtype": array.dtype.str, "shape": array.shape}
                replies.write(json.dumps(head).encode() + b"\n")
                replies.write(memoryview(array).cast("B"))
                replies.flush()
        except NotImplementedError:
            _reply(replies, "unsupported")
        except MemoryError:
            _reply(replies, "memory")
        except Exception as error:  # each decoder has errors of its own for damaged data
            _reply(replies, "damaged", str(error) if isinstance(error, _UnfitError) else "")


class _UnfitError(ValueError):
    """The data are not what the header says; says why."""


def _reply(replies: BinaryIO, error: str, why: str = "") -> None:
    replies.write(json.dumps({"error": error, "why": why}).encode() + b"\n")
    replies.flush()


def _checked(path: str, frames: int) -> Iterator[Any]:
    """Decode, and refuse what pydicom only warns of: run-length data that come to more than a picture."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for array in _frames(path, frames):
            for warning in said:
                sizes = re.search(r"RLE segment .* - (\d+) vs\. (\d+) bytes", str(warning.message))
                if sizes and int(sizes[1]) - int(sizes[2]) > _RLE_PADDING:
                    raise _UnfitError(f"they unpack to {sizes[1]} bytes a segment, where the picture has {sizes[2]}")
            said.clear()
            yield array


def _frames(path: str, frames: int) -> Iterator[Any]:
    """Decode all frames of a file, one after the other."""
    import numpy as np
    import pydicom
    from pydicom.encaps import generate_frames
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import iter_pixels

    data = pydicom.dcmread(path, force=True)
    if not get_decoder(data.file_meta.TransferSyntaxUID).is_available:
        raise NotImplementedError
    for stream in generate_frames(data.PixelData, number_of_frames=frames):
        size = _size(stream)
        if size is not None and size != (data.Rows, data.Columns):
            said = f"{data.Rows} x {data.Columns}"
            raise _UnfitError(f"the picture in them has {size[0]} x {size[1]} pixels, the header says {said}")
    try:
        for array in [data.pixel_array] if frames == 1 else iter_pixels(data):
            yield np.ascontiguousarray(array)
    except MemoryError:
        raise
    except Exception as error:
        streams = enumerate(generate_frames(data.PixelData, number_of_frames=frames), 1)
        faults = ((number, _fault(stream, data)) for number, stream in streams)
        number, fault = next(((number, fault) for number, fault in faults if fault), (1, ""))
        raise _UnfitError(f"frame {number}: {fault}" if frames > 1 and fault else fault) from error


def _fault(stream: bytes, data: Any) -> str:
    """Say what a compressed picture that could not be decoded lacks at its start or end; empty where nothing tells."""
    if data.file_meta.TransferSyntaxUID == _RLE:
        found = int.from_bytes(stream[:4], "little")
        needed = data.SamplesPerPixel * data.BitsAllocated // 8
        return "" if found == needed else f"they have {found} run-length segments, where the picture needs {needed}"
    if not stream.startswith((b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP")):
        return "no picture starts in them"
    return "" if stream.rstrip(b"\0").endswith(b"\xff\xd9") else "the picture in them has no end"


def _size(stream: bytes) -> tuple[int, int] | None:
    """Return rows and columns by the compressed picture itself; none where it is no JPEG of any kind."""
    start = stream.find(_JPEG_2000, 0, 4096)
    if start >= 0:
        right, bottom, left, top = struct.unpack(">4L", stream[start + 8 : start + 24])
        return bottom - top, right - left
    if stream[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        length, rows, columns = struct.unpack(">HxHH", stream[place + 2 : place + 9])
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return rows, columns
        place += 2 + length
    return None


def _limit_memory(more: int) -> None:
    """Allow this process so many bytes more than it has now; on systems without such limits nothing happens."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource
        from pathlib import Path

        fields = Path("/proc/self/statm").read_text().split()
        now = int(fields[5]) * os.sysconf("SC_PAGE_SIZE")  # data and stack
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (now + more + _SPARE_BYTES, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
