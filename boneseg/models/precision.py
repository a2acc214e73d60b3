"""The number format a network computes in: the one place that decides it, for training and prediction alike."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from boneseg.errors import SettingsError
from boneseg.machine import cpu_share


def use_own_cpus() -> None:
    """Let torch compute with this process's CPUs only: it counts the machine's, and a pod or a worker has fewer."""
    if cpu_share() < torch.get_num_threads():
        torch.set_num_threads(cpu_share())


use_own_cpus()


@dataclass(frozen=True)
class Precision:
    """Where and in what format a network computes.

    Attributes:
        device: device of the network and its input.
        bf16: whether convolutions and products run in bfloat16; weights stay float32.
        plain: whether memory order stays plain although bf16 is fastest in channels last.
    """

    device: torch.device
    bf16: bool
    plain: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """Order of a tensor's values: channels last wherever bf16 is fast, since its kernels want it so."""
        return torch.channels_last if self.bf16 and not self.plain else torch.contiguous_format

    @property
    def words(self) -> str:
        """What a person calls it: ``bf16, channels last``, ``bf16`` or ``fp32``."""
        return ("bf16" if self.plain else "bf16, channels last") if self.bf16 else "fp32"

    def slower(self) -> Precision | None:
        """Return the next slower way to compute the same; none where this is the slowest."""
        if not self.bf16:
            return None
        return Precision(self.device, bf16=not self.plain, plain=not self.plain)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context a forward pass runs in."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device and format, in place; returns it."""
        return network.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload,no-any-return]

    def image(self, batch: Tensor) -> Tensor:
        """Move images (N, channels, H, W) to the device and format."""
        return batch.to(self.device, non_blocking=True).contiguous(memory_format=self.memory_format)


def choose_precision(device: str = "auto", precision: str = "auto") -> Precision:
    """Decide device and format.

    Args:
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        precision: ``auto`` (bf16 where the hardware computes in it), ``bf16`` or ``fp32``.

    Raises:
        SettingsError: a GPU is asked for and there is none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError("device = 'cuda': this machine shows no GPU to torch; set device to cpu or auto")
    chosen = torch.device(device)
    return Precision(chosen, precision == "bf16" or (precision == "auto" and fast_bf16(chosen)))


def fast_bf16(device: torch.device) -> bool:
    """Say whether the hardware itself computes in bfloat16, so that it gains time.

    oneDNN emulates bf16 on any CPU with AVX-512, which gains nothing: only AVX512_BF16, AMX and Arm's BF16 count.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if platform.machine().lower() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
