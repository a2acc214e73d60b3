"""A step of several workers, side by side in one run: ``python -m benchmarks.distributed``; start-up does not count.

All take the same batch of the same network, in turn, so that whatever else the machine does hits them alike:

1. one worker on all threads (on one GPU);
2. several workers that share these threads (a GPU each), as boneseg trains: loss, batch normalisation and dropout over
   the whole batch;
3. as many processes of torch's own DistributedDataParallel as any tutorial shows it, each with a loss and statistics of
   its own; on GPUs with torch's SyncBatchNorm, too.

Target: 2 at most 3 % slower than 3. Against 1 the ideal on a CPU is 1, on GPUs the number of workers.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from boneseg.dataset.slices import Batch, shares
from boneseg.models.build import build_model
from boneseg.models.precision import Precision, choose_precision
from boneseg.settings.schema import Loss, ModelSettings, TrainSettings
from boneseg.train.epoch import training_step
from boneseg.train.losses import loss_of
from boneseg.train.process_group import ProcessGroup

LOSS = Loss.CROSS_ENTROPY_DICE
WARM_UP = 3
Side = tuple[str, int, Callable[[], object]]
"""Name, threads of each process, and a step; a side of all threads is rank 0's alone."""


def random_batch(settings: TrainSettings) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = (settings.batch_size, settings.crop, settings.crop)
    image = torch.rand((shape[0], 1, *shape[1:]), generator=generator)
    return Batch(image, torch.randint(0, 3, shape, generator=generator, dtype=torch.uint8))


def plain_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, precision: Precision, norm: float | None
) -> None:
    """Take a step as a tutorial on DistributedDataParallel does."""
    optimizer.zero_grad()
    with precision.autocast():
        logits = network(precision.image(batch.image))
    loss = loss_of(LOSS, logits, batch.label.to(precision.device).long())
    loss.backward()  # type: ignore[no-untyped-call]
    if norm is not None:
        nn.utils.clip_grad_norm_(network.parameters(), norm)
    optimizer.step()


def sides_of(model: ModelSettings, settings: TrainSettings, group: ProcessGroup, threads: int) -> list[Side]:
    """Return what this process takes part in."""
    precision = choose_precision(group.device or "cpu", settings.precision)
    whole = random_batch(settings)
    own = list(shares(settings.batch_size, group.size)[group.rank])
    share = Batch(whole.image[own], whole.label[own])
    each = max(1, threads // group.size)
    found: list[Side] = []

    def start() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = precision.place(build_model(model)).train()
        return network, torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)

    if group.is_rank_zero:
        alone, optimizer = start()
        found.append(("one worker", threads, lambda: training_step(alone, optimizer, whole, settings, precision)))
    ours, our_optimizer = start()
    replica = group.data_parallel(ours)
    found.append(
        (
            f"{group.size} workers",
            each,
            lambda: training_step(replica, our_optimizer, share, settings, precision, group=group),
        )
    )
    plain, plain_optimizer = start()
    parallel = DistributedDataParallel(plain)
    norm = settings.gradient_norm
    found.append(("torch's DDP", each, lambda: plain_step(parallel, plain_optimizer, share, precision, norm)))
    if precision.device.type == "cuda":
        normed = nn.SyncBatchNorm.convert_sync_batchnorm(start()[0])  # type: ignore[no-untyped-call]
        its = torch.optim.AdamW(normed.parameters(), lr=1e-3, fused=True)
        synced = DistributedDataParallel(normed)
        found.append(("torch's DDP, SyncBatchNorm", each, lambda: plain_step(synced, its, share, precision, norm)))
    return found


def member(rank: int, folder: str, model: ModelSettings, settings: TrainSettings, size: int, rounds: int) -> None:
    """Be one process; rank 0 prints."""
    gpus = torch.cuda.device_count() if settings.device != "cpu" else 0
    device = f"cuda:{rank % gpus}" if gpus else "cpu"
    if gpus:
        torch.cuda.set_device(device)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    meeting = dist.FileStore(f"{folder}/meeting", size)  # type: ignore[attr-defined]
    dist.init_process_group("nccl" if gpus >= size else "gloo", store=meeting, rank=rank, world_size=size)
    torch.set_flush_denormal(True)
    threads = max(torch.get_num_threads(), size)
    sides = sides_of(model, settings, ProcessGroup(rank, size, device), threads)
    seconds: dict[str, list[float]] = {name: [] for name, _, _ in sides}
    for turn in range(rounds + WARM_UP):
        for name, count, step in sides if rank == 0 else [("", 1, lambda: None), *sides]:
            torch.set_num_threads(count)
            dist.barrier()
            started = time.perf_counter()
            step()
            if gpus:
                torch.cuda.synchronize()
            if turn >= WARM_UP and name:
                seconds[name].append(time.perf_counter() - started)
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        show(seconds, f"{size} workers", threads, device)


def show(seconds: dict[str, list[float]], ours: str, threads: int, device: str) -> None:
    print(f"{threads} threads in all, rank 0 on {device}\n")
    for name, times in seconds.items():
        print(f"{name:28s} {min(times) * 1e3:8.1f} ms a step at best, {median(times) * 1e3:8.1f} in the middle")
    print()
    for name, times in seconds.items():
        if name != ours:
            ratios = [mine / theirs for mine, theirs in zip(seconds[ours], times, strict=True)]
            target = " (target: at most 1.03)" if name.startswith("torch") else ""
            least = min(seconds[ours]) / min(times)
            print(f"{ours} / {name:28s} {least:6.3f} at best, {median(ratios):6.3f} in the middle{target}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default=ModelSettings().architecture)
    parser.add_argument("--encoder", default=ModelSettings().encoder)
    parser.add_argument("--batch-size", type=int, default=TrainSettings().batch_size, help="of all workers together")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--rounds", type=int, default=12, help="steps of each side that count")
    chosen = parser.parse_args()
    model = ModelSettings(architecture=chosen.architecture, encoder=chosen.encoder)
    settings = TrainSettings.model_validate(
        {name: getattr(chosen, name) for name in ("batch_size", "crop", "device", "precision")} | {"loss": LOSS}
    )
    print(f"{model.architecture} on {model.encoder}, batch {settings.batch_size}, crop {settings.crop}")
    with tempfile.TemporaryDirectory() as folder:
        given = str(Path(folder)), model, settings, chosen.workers, chosen.rounds
        torch.multiprocessing.spawn(member, given, nprocs=chosen.workers)  # type: ignore[attr-defined,no-untyped-call]


if __name__ == "__main__":
    main()
