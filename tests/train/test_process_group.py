"""Two processes on this machine train together, without Ray."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from boneseg.dataset.slices import Batch
from boneseg.encoder_compatibility import refusal
from boneseg.models.build import BUILDERS, build_model
from boneseg.models.precision import choose_precision
from boneseg.models.probe import fault_of
from boneseg.settings.schema import ModelSettings, TrainSettings
from boneseg.train.epoch import training_step
from boneseg.train.optimisation import build_optimizer
from boneseg.train.process_group import ProcessGroup

Pair = tuple[str, str]
VIT = "tu-vit_tiny_patch16_224"
SETTINGS = TrainSettings(batch_size=2, crop=64, device="cpu", precision="fp32")


def member(rank: int, meeting: str, folder: str, pairs: tuple[Pair, ...]) -> None:
    """Take two steps with every network, each process on images of its own, and save what they led to."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(meeting, 2), rank=rank, world_size=2)
    group = ProcessGroup(rank, 2, "cpu")
    for architecture, encoder in pairs:
        torch.manual_seed(rank)
        network = build_model(ModelSettings(architecture=architecture, encoder=encoder)).train()
        replica = group.data_parallel(network)
        optimizer = build_optimizer(network, SETTINGS)
        for _ in range(2):
            batch = Batch(torch.rand(2, 1, 64, 64), torch.randint(0, 3, (2, 64, 64), dtype=torch.uint8))
            training_step(replica, optimizer, batch, SETTINGS, choose_precision("cpu", "fp32"))
        torch.save(dict(network.named_parameters()), Path(folder) / f"{architecture}-{encoder}-{rank}.pt")
    dist.destroy_process_group()


def train_together(folder: Path, pairs: tuple[Pair, ...]) -> None:
    multiprocessing.spawn(member, (str(folder / "meeting"), str(folder), pairs), nprocs=2)
    for architecture, encoder in pairs:
        one, other = (torch.load(folder / f"{architecture}-{encoder}-{rank}.pt") for rank in (0, 1))
        assert all(torch.equal(weight, other[name]) for name, weight in one.items()), (architecture, encoder)


def test_networks_that_leave_parameters_unused_train_in_a_process_group(tmp_path: Path) -> None:
    train_together(tmp_path, (("unet", "efficientnet-b0"), ("pspnet", "mobilenet_v2"), ("dpt", VIT), ("fpn", "mit_b0")))


def works(architecture: str, encoder: str) -> bool:
    return refusal(architecture, encoder) is None and not fault_of(architecture, encoder)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_architecture_trains_in_a_process_group(tmp_path: Path) -> None:
    encoders = ("resnet18", "timm-tf_efficientnet_lite0", "vgg11", VIT, "plain")
    pairs = [(name, encoder) for name in BUILDERS for encoder in encoders if works(name, encoder)]
    # 4096 channels at full width take gigabytes in two processes, and every layer of theirs is used.
    train_together(tmp_path, tuple(pair for pair in pairs if not pair[0].startswith("paper-fcn")))
