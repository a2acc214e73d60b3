import pytest
import torch

from boneseg.errors import SettingsError
from boneseg.models.precision import choose_precision, fast_bf16


def test_auto_computes_in_bf16_exactly_where_the_cpu_has_it() -> None:
    with open("/proc/cpuinfo") as file:  # noqa: PTH123
        flags = file.read()
    if "flags" not in flags:
        pytest.skip("no x86 flags to compare with")
    assert fast_bf16(torch.device("cpu")) == ("avx512_bf16" in flags or "amx_bf16" in flags)
    assert choose_precision("cpu").bf16 == fast_bf16(torch.device("cpu"))


@pytest.mark.parametrize(("asked", "type_seen"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_convolutions_run_in_the_format_asked_for(asked: str, type_seen: torch.dtype) -> None:
    precision = choose_precision("cpu", asked)
    layer = precision.place(torch.nn.Conv2d(1, 4, 3))
    with precision.autocast():
        out = layer(precision.image(torch.rand(2, 1, 8, 8)))
    assert out.dtype == type_seen
    assert layer.weight.dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match="shows no GPU"):
        choose_precision("cuda")
