"""Three processes on this machine share each batch, without Ray: what they learn is what one would from all of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn

from boneseg.dataset.slices import Batch, shares
from boneseg.encoder_compatibility import refusal
from boneseg.models.build import BUILDERS, build_model
from boneseg.models.precision import choose_precision
from boneseg.models.probe import fault_of
from boneseg.settings.schema import Loss, ModelSettings, TrainSettings
from boneseg.train.epoch import training_step
from boneseg.train.losses import loss_of
from boneseg.train.process_group import ProcessGroup

Pair = tuple[str, str]
VIT = "tu-vit_tiny_patch16_224"
WORLD, SLICES = 3, 4
SETTINGS = TrainSettings(batch_size=SLICES, crop=64, device="cpu", precision="fp32")


def network_of(pair: Pair) -> nn.Module:
    torch.manual_seed(1)
    network = build_model(ModelSettings(architecture=pair[0], encoder=pair[1]))
    for layer in network.modules():
        if pair[0] == "dpt" and isinstance(layer, nn.Dropout):
            layer.p = 0.0  # it draws in the order of memory, which torch chooses otherwise for single slices here
    return network.double().train()  # rounding does not hide what is wrong


def batch_of(settings: TrainSettings) -> Batch:
    generator = torch.Generator().manual_seed(2)
    shape = (settings.batch_size, settings.crop, settings.crop)
    image = torch.rand((shape[0], 1, *shape[1:]), generator=generator, dtype=torch.float64)
    return Batch(image, torch.randint(0, 3, shape, generator=generator, dtype=torch.uint8))


def one_step(pair: Pair, settings: TrainSettings) -> tuple[float, dict[str, Tensor]]:
    """Take a step in one process, as any PyTorch tutorial does; return the loss before and the state after."""
    network, batch = network_of(pair), batch_of(settings)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    torch.manual_seed(3)
    # One slice at a time, the three processes compute the slices 0, 2 and 3 together, and then 1 alone.
    groups = [[0, 2, 3], [1]] if settings.micro_batch == 1 else [list(range(SLICES))]
    logits = torch.cat([network(batch.image[group]) for group in groups])
    loss = loss_of(settings.loss, logits, torch.cat([batch.label[group] for group in groups]).long())
    loss.backward()
    if settings.gradient_norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_norm)
    optimizer.step()
    return float(loss.detach()), network.state_dict()


def member(rank: int, meeting: str, folder: str, cases: tuple[tuple[Pair, TrainSettings], ...]) -> None:
    """Take a step in every case, with this process's share of the batch, and save what it led to."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(meeting, WORLD), rank=rank, world_size=WORLD)
    group = ProcessGroup(rank, WORLD, "cpu")
    for number, (pair, settings) in enumerate(cases):
        network, batch = network_of(pair), batch_of(settings)
        own = list(shares(settings.batch_size, WORLD)[rank])
        share = Batch(batch.image[own], batch.label[own])
        replica = group.data_parallel(network)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        torch.manual_seed(3)
        loss, _ = training_step(replica, optimizer, share, settings, choose_precision("cpu", "fp32"), group=group)
        torch.save((float(loss), network.state_dict()), Path(folder) / f"{number}-{rank}.pt")
    dist.destroy_process_group()


def check(folder: Path, *cases: tuple[Pair, TrainSettings]) -> None:
    multiprocessing.spawn(member, (str(folder / "meeting"), str(folder), cases), nprocs=WORLD)
    torch.set_num_threads(1)
    faults = []
    for number, (pair, settings) in enumerate(cases):
        before = dict(network_of(pair).named_parameters())
        loss, after = one_step(pair, settings)
        found = [torch.load(folder / f"{number}-{rank}.pt") for rank in range(WORLD)]
        same = all(torch.equal(value, each[1][name]) for each in found for name, value in found[0][1].items())
        way = sum(float(((after[name] - value).double() ** 2).sum()) for name, value in before.items()) ** 0.5
        # Buffers are among these: running means and variances are those of all slices, too.
        wrong = sum(float(((found[0][1][name] - value).double() ** 2).sum()) for name, value in after.items()) ** 0.5
        if not same or found[0][0] != pytest.approx(loss, rel=1e-5) or not wrong <= 1e-4 * way:
            faults.append(f"{pair} {settings.loss} same {same}, loss {found[0][0]} for {loss}, {wrong / way:.2g} off")
    assert not faults, "\n".join(faults)


def test_three_processes_take_the_step_that_one_takes(tmp_path: Path) -> None:
    """4 slices over 3: 2, 1, 1. Among the networks are those that leave parameters unused, drop, pool to one value."""
    pairs = (
        ("unet", "efficientnet-b0"),
        ("pspnet", "mobilenet_v2"),
        ("dpt", VIT),
        ("fpn", "mit_b0"),
        ("deeplabv3plus", "tu-mobilenetv3_small_100"),
        ("unet", "tu-regnety_002"),
        ("paper-segnet", "plain"),
    )
    others = [SETTINGS.model_copy(update={"loss": loss, "micro_batch": size}) for loss in Loss for size in (None, 1)]
    check(tmp_path, *((pair, SETTINGS) for pair in pairs), *((("linknet", "mobilenet_v2"), each) for each in others))


def works(architecture: str, encoder: str) -> bool:
    return refusal(architecture, encoder) is None and not fault_of(architecture, encoder)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_architecture_takes_the_step_that_one_process_takes(tmp_path: Path) -> None:
    encoders = ("resnet18", "timm-tf_efficientnet_lite0", "vgg11", VIT, "plain")
    pairs = [(name, encoder) for name in BUILDERS for encoder in encoders if works(name, encoder)]
    # 4096 channels at full width take gigabytes in three processes.
    check(tmp_path, *((pair, SETTINGS) for pair in pairs if not pair[0].startswith("paper-fcn")))
