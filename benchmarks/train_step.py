"""Training speed, side by side in one run: ``python -m benchmarks.train_step``.

1. This training step against a plain PyTorch loop (fp32, NCHW) of the same network, batch and loss, step by step in
   turn. Target on a CPU with bf16: 2.5 times as fast.
2. The same epochs inside a Ray Train worker against no Ray at all, after start-up: epochs without Ray are timed before
   and after, so that a machine that grows slower does not count against one side. Target: at most 3 % slower.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from boneseg.dataset.slices import Batch, SliceDataset, TrainingBatches
from boneseg.models.build import build_model
from boneseg.models.precision import Precision, choose_precision
from boneseg.scheme import Labelling
from boneseg.settings.schema import Loss, ModelSettings, TrainSettings
from boneseg.train.epoch import train_epoch, training_step
from boneseg.train.losses import loss_of
from boneseg.train.process_group import ProcessGroup

LOSS = Loss.CROSS_ENTROPY_DICE


class _NoSlices(SliceDataset):
    """What the loop asks of slices beside their batches."""

    def __init__(self) -> None:
        self.labelling = Labelling()


class OneBatch(TrainingBatches):
    """The same random batch again and again, so that reading data is not measured."""

    def __init__(self, settings: TrainSettings, steps: int) -> None:
        self.settings = settings
        self._steps = steps
        self._batch = random_batch(settings)
        self.slices = _NoSlices()

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return self._steps

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        return (self._batch for _ in range(first, self._steps))


def random_batch(settings: TrainSettings) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = (settings.batch_size, settings.crop, settings.crop)
    image = torch.rand((shape[0], 1, *shape[1:]), generator=generator)
    return Batch(image, torch.randint(0, 3, shape, generator=generator, dtype=torch.uint8))


def plain_step(network: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """Take a step as any PyTorch tutorial does."""
    optimizer.zero_grad()
    loss = loss_of(LOSS, network(batch.image), batch.label.long())
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def compare_steps(model: ModelSettings, settings: TrainSettings, rounds: int) -> None:
    batch = random_batch(settings)
    plain = build_model(model).train()
    plain_optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3)
    precision = choose_precision("cpu")
    network = precision.place(build_model(model)).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    plain_times, times = [], []
    for turn in range(rounds + 2):  # the first two are warm-up
        started = time.perf_counter()
        plain_step(plain, plain_optimizer, batch)
        between = time.perf_counter()
        training_step(network, optimizer, batch, settings, precision)
        if turn >= 2:
            plain_times.append(between - started)
            times.append(time.perf_counter() - between)
    slow, fast = min(plain_times), min(times)  # the least disturbed by whatever else the machine does
    print(f"plain fp32 NCHW loop    {slow * 1e3:7.0f} ms a step")
    print(f"boneseg ({'bf16' if precision.bf16 else 'fp32'})          {fast * 1e3:7.0f} ms a step")
    print(f"ratio                   {slow / fast:7.2f} (target 2.5 on a CPU with bf16)")


def time_epochs(model: ModelSettings, settings: TrainSettings, steps: int, epochs: int) -> list[float]:
    """Return the seconds of each epoch after a first one that warms up."""
    torch.set_flush_denormal(True)
    precision: Precision = choose_precision("cpu")
    network = precision.place(build_model(model))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    batches = OneBatch(settings, steps)
    times = []
    for epoch in range(1, epochs + 2):
        started = time.perf_counter()
        train_epoch(network, optimizer, batches, epoch, precision, ProcessGroup())
        times.append(time.perf_counter() - started)
    return times[1:]


def time_epochs_in_ray(model: ModelSettings, settings: TrainSettings, steps: int, epochs: int) -> list[float]:
    from boneseg.ray_cluster.connect import cluster
    from boneseg.ray_cluster.environment import before_ray

    before_ray()
    import ray.train
    import ray.train.torch

    threads = torch.get_num_threads()

    with tempfile.TemporaryDirectory() as folder, cluster(least_cpus=threads):
        result = Path(folder) / "seconds.txt"

        def work() -> None:
            times = time_epochs(model, settings, steps, epochs)
            result.write_text(" ".join(map(str, times)))
            ray.train.report({})

        trainer = ray.train.torch.TorchTrainer(
            work,
            scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": threads}),
            run_config=ray.train.RunConfig(name="benchmark", storage_path=folder),
        )
        trainer.fit()
        return [float(text) for text in result.read_text().split()]


def compare_with_ray(model: ModelSettings, settings: TrainSettings, steps: int, epochs: int) -> None:
    alone = time_epochs(model, settings, steps, epochs)
    in_ray = time_epochs_in_ray(model, settings, steps, 2 * epochs)
    alone += time_epochs(model, settings, steps, epochs)
    flat, ray_time = min(alone), min(in_ray)
    print(f"without Ray             {flat:7.2f} s for {steps} steps")
    print(f"in a Ray Train worker   {ray_time:7.2f} s for {steps} steps")
    print(f"ratio                   {ray_time / flat:7.3f} (target: at most 1.03)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default=ModelSettings().architecture)
    parser.add_argument("--encoder", default=ModelSettings().encoder)
    parser.add_argument("--batch-size", type=int, default=TrainSettings().batch_size)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=8, help="steps that are compared")
    parser.add_argument("--steps", type=int, default=5, help="steps of an epoch with and without Ray")
    parser.add_argument("--epochs", type=int, default=3, help="epochs before, and again after, those with Ray")
    chosen = parser.parse_args()
    model = ModelSettings(architecture=chosen.architecture, encoder=chosen.encoder)
    settings = TrainSettings(batch_size=chosen.batch_size, crop=chosen.crop, loss=LOSS)
    torch.set_flush_denormal(True)
    print(f"{model.architecture} on {model.encoder}, batch {settings.batch_size}, crop {settings.crop}")
    print(f"{torch.get_num_threads()} threads\n")
    compare_steps(model, settings, chosen.rounds)
    print()
    compare_with_ray(model, settings, chosen.steps, chosen.epochs)


if __name__ == "__main__":
    main()
