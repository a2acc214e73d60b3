"""Peak memory of prepare on some series and on ten times as many: ``python benchmarks/prepare_memory.py``.

Series are synthetic NIfTI volumes of one size, in an embedded object store of their own. Each measurement runs in a
fresh process that prepares one series after the other, so that its peak holds everything: reading, labelling, uploading
and what is remembered of each series. The target is a ratio near 1.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from boneseg.geometry import axial
from boneseg.nifti import write_volume
from boneseg.settings.schema import PrepareSettings, PullSettings, StoreSettings
from boneseg.storage import embedded
from boneseg.storage.client import ObjectStore
from boneseg.storage.workspace import Workspace

SHAPE, SPACING = (48, 256, 256), (3.0, 1.2, 1.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=5, help="series of the smaller set")
    parser.add_argument("--measure", nargs=3, metavar=("STORE", "BUCKET", "CATALOGUE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        embedded.start(Path(folder))
        try:
            peaks = [peak(Path(folder), arguments.series * factor) for factor in (1, 10)]
        finally:
            embedded.stop(Path(folder))
    print(f"{arguments.series} series: {peaks[0]:.0f} MiB, {arguments.series * 10} series: {peaks[1]:.0f} MiB")
    print(f"ratio {peaks[1] / peaks[0]:.2f}")


def peak(folder: Path, count: int) -> float:
    """Return the peak memory, in MiB, of preparing a bucket with ``count`` series."""
    from boneseg.ingest.pull import pull

    workspace = open_workspace(folder, f"memory-{count}")
    workspace.store.ensure_bucket()
    for seed in range(count):
        put_series(workspace.store, folder, seed)
    catalogue = pull(workspace, StoreSettings(), PullSettings()).catalogue_uri
    command = [sys.executable, __file__, "--measure", str(folder), workspace.store.bucket, catalogue]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(store: str, bucket: str, catalogue: str) -> None:
    """Prepare in this process and print its peak memory in MiB."""
    from boneseg.dataset.prepare import prepare

    prepare(open_workspace(Path(store), bucket), catalogue, PrepareSettings(parallel=1))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def open_workspace(folder: Path, bucket: str) -> Workspace:
    state = embedded.status(folder)
    assert state is not None
    store = ObjectStore(state.endpoint, bucket, embedded.credentials(folder))
    return Workspace(store, folder / "work" / bucket)


def put_series(store: ObjectStore, folder: Path, seed: int) -> None:
    """Upload a volume with a label that holds only bone, so that the outline is computed too."""
    random = np.random.default_rng(seed)
    hu = random.normal(-1000, 15, SHAPE)
    hu[:, 60:200, 40:220] += 1040
    hu[:, 110:150, 100:150] += 500
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[:, 110:150, 100:150] = 1
    for name, volume in (("ct", hu.astype(np.int16)), ("label", label)):
        path = folder / f"{name}.nii"
        write_volume(path, volume, axial(SHAPE, SPACING))
        store.upload(path, f"raw/{seed}/{name}.nii")


if __name__ == "__main__":
    main()
