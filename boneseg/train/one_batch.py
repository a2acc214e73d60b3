"""Layers that look at, or draw for, a whole batch do so although several processes share it.

Batch normalisation takes mean and variance over the slices of all processes, and every process draws dropout's random
numbers for all slices and uses those of its own: so the network answers as it would in one process. The functions are
replaced while the network is called, not its layers: those of timm and others call the same functions in their own way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import Function
from torch.nn import functional
from torch.nn.modules._functions import SyncBatchNorm
from torch.overrides import TorchFunctionMode

from boneseg.train.process_group import ProcessGroup


@dataclass(frozen=True)
class Rows:
    """The slices that one process computes of those that all processes compute at once.

    Attributes:
        first: number of its first one.
        own: how many it has; with 0 it takes part with one slice that does not count.
        total: how many there are.
    """

    first: int
    own: int
    total: int


def one_batch(rows: Rows, group: ProcessGroup) -> AbstractContextManager[object]:
    """Return the context in which to call a network, so that it treats all processes' slices as one batch.

    Args:
        rows: which slices are this process's.
        group: the processes; all must call the network at the same time.
    """
    return _OneBatch(rows, group) if group.size > 1 else nullcontext()


class _OneBatch(TorchFunctionMode):
    def __init__(self, rows: Rows, group: ProcessGroup) -> None:
        super().__init__()
        self._rows = rows
        self._group = group
        self._ways: dict[Callable[..., Any], Callable[..., Any]] = {
            functional.batch_norm: self._batch_norm,
            functional.dropout: self._dropout,
            functional.dropout2d: self._dropout2d,
            torch.Tensor.bernoulli_: self._bernoulli,
            torch.rand: self._rand,
        }

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._ways.get(func, func)(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        image: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        # Without running statistics it is a convolution that standardises its weights.
        if not training or running_mean is None or running_var is None:
            return functional.batch_norm(image, running_mean, running_var, weight, bias, training, momentum, eps)
        own = image if self._rows.own else image[:0].float()
        weight = torch.ones_like(running_mean) if weight is None else weight
        bias = torch.zeros_like(running_mean) if bias is None else bias
        if image.is_cuda:
            everybody = dist.group.WORLD, self._group.size
            found: Tensor = SyncBatchNorm.apply(own, weight, bias, running_mean, running_var, eps, momentum, *everybody)
        else:
            found = BatchNormOfAll.apply(own, weight, bias, running_mean, running_var, momentum, eps)
        if self._rows.own:
            return found
        # It adds nothing to the others' sums, but they wait for it, forwards and backwards.
        plain = functional.batch_norm(image, running_mean.clone(), running_var.clone(), weight, bias, eps=eps)
        return plain + found.sum().to(plain.dtype)

    def _dropout(self, image: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or not self._is_of_slices(image):
            return functional.dropout(image, p, training, inplace)
        return image * self._own(functional.dropout(self._ones(image, image.shape[1:]), p), image)

    def _dropout2d(self, image: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or image.dim() != 4 or not self._is_of_slices(image):
            return functional.dropout2d(image, p, training, inplace)
        ones = self._ones(image, (image.shape[1], 1, 1))
        return image * self._own(functional.dropout2d(ones, p), image)

    def _bernoulli(self, values: Tensor, *given: Any, **more: Any) -> Tensor:
        if not self._is_of_slices(values):
            return values.bernoulli_(*given, **more)
        drawn = self._ones(values, values.shape[1:]).bernoulli_(*given, **more)
        return values.copy_(self._own(drawn, values))

    def _rand(self, *size: Any, **more: Any) -> Tensor:
        shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
        if not shape or shape[0] != self._here:
            return torch.rand(*size, **more)
        drawn = torch.rand((self._rows.total, *shape[1:]), **more)
        first = self._rows.first if self._rows.own else 0
        return drawn[first : first + self._here]

    @property
    def _here(self) -> int:
        return max(self._rows.own, 1)

    def _is_of_slices(self, values: Tensor) -> bool:
        """Say whether the first axis is one of slices, or of as many parts of each, such as windows."""
        return values.dim() > 0 and len(values) > 0 and len(values) % self._here == 0

    def _ones(self, like: Tensor, shape: Sequence[int]) -> Tensor:
        """Return ones for every slice of all processes; random numbers are drawn in the order that memory has."""
        ones = like.new_ones((len(like) // self._here * self._rows.total, *shape))
        last = like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last)
        return ones.contiguous(memory_format=torch.channels_last) if last and ones.dim() == 4 else ones

    def _own(self, drawn: Tensor, like: Tensor) -> Tensor:
        parts = len(like) // self._here
        first = self._rows.first * parts if self._rows.own else 0
        return drawn[first : first + len(like)]


class BatchNormOfAll(Function):
    """Batch normalisation over the slices of all processes, on a CPU; torch's own of this kind is for GPUs.

    Sums are added up over the processes in float64, and torch's kernels do the rest. The gradient by the input x of one
    channel, with weight w, N values in all processes, and y = (x - mean) / deviation, is
    w / deviation (g - sum(g) / N - y sum(g y) / N): Ioffe and Szegedy, Batch normalization, 2015.
    """

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        """Normalise (N, channels, H, W), of which N may be 0, and let the running statistics follow."""
        channels = image.shape[1]
        sums = torch.zeros(2 * channels + 1, dtype=torch.float64)
        count = image.numel() // channels
        if count:
            zeros, ones = torch.zeros_like(running_mean), torch.ones_like(running_var)
            mean, var = (each.double() for each in torch.ops.aten.batch_norm_update_stats(image, zeros, ones, 0.0))
            sums = torch.cat([sums.new_full((1,), count), mean * count, (var + mean * mean) * count])
        dist.all_reduce(sums)
        total = float(sums[0])
        if total < 2:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {image.shape}")
        mean, squares = (sums[1:] / total).chunk(2)
        var = (squares - mean * mean).clamp(min=0)
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((var * total / (total - 1)).to(running_var.dtype), momentum)
        mean, var = mean.to(weight.dtype), var.to(weight.dtype)
        ctx.save_for_backward(image, weight, mean, var)
        ctx.total, ctx.eps = total, eps
        return _normalised(image, weight, bias, mean, var, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of image, weight and bias; those of the latter two for this process's slices only."""
        image, weight, mean, var = ctx.saved_tensors
        channels = len(mean)
        sums = torch.zeros(2 * channels, dtype=torch.float64)
        given, of_weight, of_bias = torch.zeros_like(image), torch.zeros_like(mean), torch.zeros_like(mean)
        if len(image):
            given, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                gradients[0], image, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
            )
            sums = torch.cat([of_bias, of_weight]).double()
        dist.all_reduce(sums)
        if len(image):
            plain, along = sums.chunk(2)
            inverse = (var.double() + ctx.eps).rsqrt()
            scale = weight.double() * inverse / -ctx.total
            slope = scale * inverse * along
            offset = (scale * plain - slope * mean.double()).to(mean.dtype)
            zeros, ones = torch.zeros_like(mean), torch.ones_like(mean)
            given = given.add_(_normalised(image, slope.to(mean.dtype), offset, zeros, ones, 0.0))
        return given, of_weight, of_bias, None, None, None, None


def _normalised(image: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    if not len(image):
        return torch.empty_like(image)
    found: Tensor = torch.native_batch_norm(image, weight, bias, mean, var, False, 0.0, eps)[0]
    return found
