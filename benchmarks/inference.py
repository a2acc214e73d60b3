"""Prediction speed of some networks, side by side: ``python -m benchmarks.inference``.

Milliseconds for one slice of 512 x 512: as boneseg predicts (bf16 and channels last where the hardware has them) and
as plain PyTorch does (fp32, NCHW), in turn.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from boneseg.config import ModelSettings, PreprocessSettings
from boneseg.dataset.preprocess import normalise
from boneseg.geometry import axial
from boneseg.inference import predict_volume
from boneseg.models.build import build_model, count_parameters

NETWORKS = (
    ("unet", "mobilenet_v2"),
    ("unet", "resnet18"),
    ("unet", "resnet50"),
    ("fpn", "resnet18"),
    ("linknet", "resnet18"),
    ("unetplusplus", "resnet18"),
    ("deeplabv3plus", "resnet18"),
    ("segformer", "mit_b0"),
)
SLICES, SIZE = 4, 512


def compare(model: ModelSettings, rounds: int) -> tuple[float, float, int]:
    """Return ms a slice, fast and plain, and the number of parameters."""
    hu = np.random.default_rng(0).integers(-1000, 1500, (SLICES, SIZE, SIZE), dtype=np.int16)
    geometry, preprocess = axial(hu.shape, (1.0, 1.0, 1.0)), PreprocessSettings()
    plain, network = build_model(model).eval(), build_model(model).eval()
    fast_times, plain_times = [], []
    for turn in range(rounds + 1):  # the first is warm-up
        started = time.perf_counter()
        predict_volume(network, preprocess, hu, geometry, batch_size=SLICES)
        between = time.perf_counter()
        with torch.inference_mode():
            plain(torch.from_numpy(normalise(hu, preprocess))[:, None]).argmax(dim=1).to(torch.uint8).numpy()
        if turn:
            fast_times.append(between - started)
            plain_times.append(time.perf_counter() - between)
    fast, slow = (1e3 * min(times) / SLICES for times in (fast_times, plain_times))
    return fast, slow, count_parameters(network).total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(f"{'network':32}{'parameters':>12}{'boneseg ms':>12}{'plain ms':>12}{'ratio':>8}")
    for architecture, encoder in NETWORKS:
        fast, slow, count = compare(ModelSettings(architecture=architecture, encoder=encoder), rounds)
        print(f"{architecture + ' / ' + encoder:32}{count / 1e6:11.1f}M{fast:12.0f}{slow:12.0f}{slow / fast:8.2f}")


if __name__ == "__main__":
    main()
