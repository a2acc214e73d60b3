"""Prediction speed of networks, side by side: ``python -m benchmarks.inference``.

Milliseconds for one slice of 512 x 512, from HU to labels: as boneseg predicts (bf16 and channels last where the
hardware has them) and as plain PyTorch does (fp32, NCHW), in turn on the same weights. The ratio is how many times
faster the first is. The paper's Table 2 gives 57.6, 59.5, 23.3, 26.3 and 24.4 ms for its FCN8, FCN32, PSPNet, U-Net and
SegNet on an RTX 2080 Ti.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import numpy as np
import torch

from boneseg.geometry import axial
from boneseg.hu import normalise
from boneseg.inference import predict_volume
from boneseg.models.build import build_model, count_parameters
from boneseg.models.precision import choose_precision
from boneseg.settings.schema import ModelSettings, PreprocessSettings
from boneseg.study import paper_numbers as printed

NETWORKS = (
    *printed.TITLES,
    "unet/mobilenet_v2",
    "unet/resnet18",
    "unet/resnet50",
    "fpn/resnet18",
    "linknet/resnet18",
    "unetplusplus/resnet18",
    "deeplabv3plus/resnet18",
    "segformer/mit_b0",
)
SIZE = 512


def settings_of(name: str) -> ModelSettings:
    """Return the settings of ``architecture/encoder``."""
    architecture, _, encoder = name.partition("/")
    return ModelSettings(architecture=architecture, encoder=encoder)


def compare(name: str, rounds: int, batch: int, device: str) -> tuple[float, float, int]:
    """Return ms a slice, fast and plain, each the median of the rounds, and the number of parameters."""
    hu = np.random.default_rng(0).integers(-1000, 1500, (batch, SIZE, SIZE), dtype=np.int16)
    geometry, preprocess = axial(hu.shape, (1.0, 1.0, 1.0)), PreprocessSettings(spacing_mm=None)
    plain = build_model(settings_of(name)).to(device).eval()
    network = copy.deepcopy(plain)
    fast_times, plain_times = [], []
    for turn in range(rounds + 1):  # the first is warm-up
        started = time.perf_counter()
        predict_volume(network, preprocess, hu, geometry, batch_size=batch, device=device)
        between = time.perf_counter()
        with torch.inference_mode():
            image = torch.from_numpy(normalise(hu, preprocess.window))[:, None].to(device)
            plain(image).argmax(dim=1).to(torch.uint8).cpu().numpy()
        if turn:
            fast_times.append(between - started)
            plain_times.append(time.perf_counter() - between)
    fast, slow = (1e3 * statistics.median(times) / batch for times in (fast_times, plain_times))
    return fast, slow, count_parameters(network).total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1, help="slices at a time; the paper times one")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--networks", nargs="+", default=NETWORKS, metavar="ARCHITECTURE/ENCODER", help="default: the paper's and some"
    )
    options = parser.parse_args()
    chosen = choose_precision(options.device)
    fast_path = "bf16, channels last" if chosen.bf16 else "fp32, NCHW: this hardware has no fast bf16"
    print(
        f"{chosen.device}, {torch.get_num_threads()} threads, {options.batch} slice(s) at a time; boneseg: {fast_path}"
    )
    print(f"{'network':32}{'parameters':>12}{'boneseg ms':>12}{'plain ms':>12}{'ratio':>8}")
    for name in options.networks:
        fast, slow, count = compare(name, options.rounds, options.batch, str(chosen.device))
        print(f"{name:32}{count / 1e6:11.1f}M{fast:12.1f}{slow:12.1f}{slow / fast:8.2f}", flush=True)


if __name__ == "__main__":
    main()
