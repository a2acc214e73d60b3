"""Reading a DICOM series: boneseg against SimpleITK's series reader, side by side in one run.

Example: python benchmarks/ingest.py FOLDER_WITH_ONE_SERIES --repeats 9
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from boneseg.dicom.series import read_series
from boneseg.hu import AIR_HU
from boneseg.machine import cpus
from boneseg.phantom.series import write_phantom

sitk: Any = SimpleITK

Reader = Callable[[Path], NDArray[Any]]


def with_boneseg(folder: Path) -> NDArray[Any]:
    return read_series(sorted(folder.iterdir()))[0]


def with_simpleitk(folder: Path) -> NDArray[Any]:
    reader = sitk.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(str(folder))
    # GDCM finds no series where UIDs are empty; names then stand in for the order.
    reader.SetFileNames(names or [str(path) for path in sorted(folder.iterdir())])
    volume: NDArray[Any] = sitk.GetArrayFromImage(reader.Execute())
    return volume


def seconds(reader: Reader, folder: Path) -> float:
    start = time.perf_counter()
    reader(folder)
    return time.perf_counter() - start


def one_thread() -> None:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def read_once(folder: Path) -> None:
    with_boneseg(folder)


def throughput(folder: Path, processes: int, series: int) -> float:
    """Return series a second over ``series`` readings of the folder by some processes."""
    with ProcessPoolExecutor(processes, initializer=one_thread) as pool:
        list(pool.map(read_once, [folder] * processes))  # start-up and imports do not count
        start = time.perf_counter()
        list(pool.map(read_once, [folder] * series))
        return series / (time.perf_counter() - start)


def compare(folder: Path, repeats: int) -> None:
    slices = len(list(folder.iterdir()))
    ours, theirs = with_boneseg(folder), with_simpleitk(folder)
    same = np.array_equal(np.sort(ours.reshape(slices, -1).sum(axis=1)), sums_with_air(theirs))
    print(f"{folder}: {slices} slices of {ours.shape[1]}x{ours.shape[2]}, the same values: {'yes' if same else 'NO'}")
    times: dict[str, list[float]] = {"boneseg": [], "SimpleITK": []}
    for _ in range(repeats):  # by turns, so that both see the same machine
        times["boneseg"].append(seconds(with_boneseg, folder))
        times["SimpleITK"].append(seconds(with_simpleitk, folder))
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"  {name:10s} {middle * 1000:8.1f} ms a series, {slices / middle:8.0f} slices/s (median of {repeats})")
    ratio = statistics.median(b / a for a, b in zip(times["boneseg"], times["SimpleITK"], strict=True))
    print(f"  ratio: boneseg is {ratio:.2f} times as fast as SimpleITK on one core (target: at least 1.0)")


def sums_with_air(volume: NDArray[Any]) -> NDArray[Any]:
    return np.sort(np.maximum(volume, AIR_HU).reshape(len(volume), -1).sum(axis=1))


def scaling(folder: Path, series: int) -> None:
    single = throughput(folder, 1, series)
    double = throughput(folder, 2, series)
    print(f"  1 process {single:.2f} series/s, 2 processes {double:.2f} series/s: {double / single:.2f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="folders with one DICOM series; none = a phantom")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    one_thread()
    print(f"{cpus()} cores; one thread each")
    with tempfile.TemporaryDirectory() as made:
        folders = arguments.folders or [write_phantom(Path(made), 0, slices=40) / "dicom"]
        for folder in folders:
            compare(folder, arguments.repeats)
            scaling(folder, series=8)


if __name__ == "__main__":
    main()
