"""The 1x1 convolution from many channels to the classes' scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ScoreConvolution(nn.Conv2d):
    """A 1x1 convolution to few channels that a CPU trains in float32 and plain memory order.

    In bfloat16 and channels last its backward pass from 4096 to 3 channels crashes, or overwrites memory that is not
    its own, on CPUs with AMX (torch 2.15). It costs next to nothing, and predicting does not need the backward pass.
    """

    def forward(self, feature: Tensor) -> Tensor:
        """Map (N, inputs, h, w) to (N, outputs, h, w)."""
        if feature.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(feature)
        with torch.autocast("cpu", enabled=False):
            plain = feature.to(self.weight.dtype).contiguous()
            return functional.conv2d(plain, self.weight.contiguous(), self.bias)
