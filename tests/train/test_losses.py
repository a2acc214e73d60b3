import pytest
import torch
from monai.losses.dice import DiceLoss
from torch.nn import functional

from boneseg.settings.schema import Loss
from boneseg.train.losses import SMOOTH, loss_of


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 12, 17, generator=generator)
    return logits, torch.randint(0, 3, (2, 12, 17), generator=generator)


def monai_dice(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    reference = DiceLoss(softmax=True, to_onehot_y=True, batch=True, smooth_nr=SMOOTH, smooth_dr=SMOOTH)
    loss: torch.Tensor = reference(logits, label[:, None])
    return loss


def test_cross_entropy_is_torchs(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.testing.assert_close(loss_of(Loss.CROSS_ENTROPY, *batch), functional.cross_entropy(*batch))


def test_dice_is_monais(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.testing.assert_close(loss_of(Loss.DICE, *batch), monai_dice(*batch))


def test_dice_is_monais_for_a_class_the_batch_does_not_have(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, label = batch[0], batch[1].clamp(max=1)
    torch.testing.assert_close(loss_of(Loss.DICE, logits, label), monai_dice(logits, label))


def test_the_sum_is_the_sum(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    expected = functional.cross_entropy(*batch) + monai_dice(*batch)
    torch.testing.assert_close(loss_of(Loss.CROSS_ENTROPY_DICE, *batch), expected)


@pytest.mark.parametrize("kind", list(Loss))
def test_a_perfect_answer_costs_nothing_and_gradients_are_finite(kind: Loss) -> None:
    label = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    logits = (functional.one_hot(label, 3).movedim(-1, 1) * 100.0).requires_grad_()
    loss = loss_of(kind, logits, label)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", list(Loss))
def test_bf16_logits_in_channels_last_give_the_same_loss(kind: Loss, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    half = batch[0].to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    loss = loss_of(kind, half, batch[1])
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_of(kind, half.float().contiguous(), batch[1]))
