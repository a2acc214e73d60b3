"""One training step with gradients checked layer by layer: the child process of ``step_check``.

``python -m boneseg.train.step_check_worker`` reads a pickled ``Step`` from its parent and prints ``sound`` or what is
wrong. A kernel that crashes takes this process along and no other.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from boneseg.models.precision import Precision
from boneseg.settings.schema import Loss
from boneseg.train.losses import loss_of

SOUND = "sound"
TOLERANCE = 0.1
"""Largest distance of a layer's gradient from that of fp32, as a share of its length: rounding to bf16 makes 0.01."""
LEAST_CANCELLED = 1e-3
"""A gradient shorter than this share of its terms is what cancelling left of them; rounding decides it."""
STEPS = 2
"""The first one is compared; a heap that it damaged often breaks in the second."""


@dataclass(frozen=True)
class Step:
    """What is tried. Crosses process borders."""

    build: Callable[[], nn.Module]
    precision: Precision
    batch: tuple[int, int, int, int]
    """Images, channels, rows and columns."""
    loss: Loss


def fault_of(step: Step) -> str | None:
    """Take the step; return what is wrong with its gradients, none where nothing is."""
    torch.manual_seed(0)
    network = step.precision.place(step.build()).train()
    faults: list[str] = []
    leaves = [(name, layer) for name, layer in network.named_modules() if not any(layer.children())]
    hooks = [
        layer.register_forward_hook(_Check(name, step.precision, faults))
        for name, layer in leaves
        if "Drop" not in type(layer).__name__
    ]
    images, channels, rows, columns = step.batch
    for _ in range(STEPS):
        network.zero_grad(set_to_none=True)
        with step.precision.autocast():
            logits = network(step.precision.image(torch.rand(images, channels, rows, columns)))
        label = torch.randint(logits.shape[1], (images, *logits.shape[2:]))
        loss_of(step.loss, logits, label).backward()  # type: ignore[no-untyped-call]
        for hook in hooks:
            hook.remove()
    gradients = [(name, weight.grad) for name, weight in network.named_parameters() if weight.grad is not None]
    faults += [f"the gradient of {name} is not a number" for name, grad in gradients if not grad.isfinite().all()]
    return faults[0] if faults else None


class _Check:
    """A forward hook that, when the layer's gradient arrives, computes it again in both ways and compares.

    The layer alone, from the same input and the same gradient behind it: over many layers rounding adds up until the
    gradients of a whole untrained network have little in common, although each layer is right.
    """

    def __init__(self, name: str, precision: Precision, faults: list[str]) -> None:
        self._name = name
        self._precision = precision
        self._faults = faults
        self._asking = False

    def __call__(self, layer: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if self._asking or len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
            return
        if output.requires_grad and inputs[0].is_floating_point():
            given = inputs[0].detach()
            output.register_hook(lambda behind: self._compare(layer, given, behind))  # type: ignore[no-untyped-call]

    def _compare(self, layer: nn.Module, given: Tensor, behind: Tensor) -> None:
        self._asking = True
        try:
            with self._precision.autocast():
                tried = _gradients(layer, given, behind)
            with torch.autocast("cpu", enabled=False):
                plain = given.float().contiguous(), behind.float().contiguous()
                expected = _gradients(layer, *plain)
                if _differ(tried, expected, expected):
                    terms = _gradients(layer, plain[0].abs(), plain[1].abs())
                    if _differ(tried, expected, [LEAST_CANCELLED * term for term in terms]):
                        self._faults.append(f"the gradient of {self._name} is not that of fp32")
        except (RuntimeError, ValueError, TypeError):
            return  # a layer that cannot be asked alone
        finally:
            self._asking = False


def _gradients(layer: nn.Module, given: Tensor, behind: Tensor) -> list[Tensor]:
    """Return the gradients of a layer's input and of its weights of two dimensions and more."""
    asked = [given.requires_grad_(), *_weights(layer)]
    with torch.enable_grad():
        output = layer(given.clone())  # some layers work in place
        found = torch.autograd.grad(output, asked, behind.to(output.dtype), allow_unused=True)
    return [torch.zeros(()) if grad is None else grad for grad in found]


def _weights(layer: nn.Module) -> Iterator[Tensor]:
    # Sums over all pixels, as the gradients of a bias are, cancel to what rounding leaves.
    return (weight for weight in layer.parameters() if weight.requires_grad and weight.dim() > 1)


def _differ(tried: list[Tensor], expected: list[Tensor], scale: list[Tensor]) -> bool:
    """Say whether gradients are further apart than the tolerance, in units of the lengths of ``scale``."""
    for one, other, unit in zip(tried, expected, scale, strict=True):
        distance = float((one.float() - other).norm())
        if not distance <= TOLERANCE * float(unit.norm()):  # so that it holds for nan
            return True
    return False


def main() -> None:
    """Try the step on standard input."""
    step: Step = pickle.load(sys.stdin.buffer)  # from our own parent
    sys.stdout.write(f"{fault_of(step) or SOUND}\n")


if __name__ == "__main__":
    main()
