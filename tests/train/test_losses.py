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


MEMBERS = torch.tensor(
    [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]]
).bool()
"""Four classes; the values 4 to 6 are the classes 2 or 3, the classes 0 or 1, and any class."""


@pytest.fixture
def partial() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 4, 9, 11, generator=generator)
    return logits, torch.randint(0, 7, (2, 9, 11), generator=generator)


def test_marginal_cross_entropy_sums_the_probabilities_of_what_a_pixel_may_be(
    partial: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, label = partial
    probabilities = logits.double().softmax(1).movedim(1, -1).reshape(-1, 4)
    values = label.reshape(-1)
    terms = [-torch.log(p[MEMBERS[value]].sum()) for p, value in zip(probabilities, values, strict=True) if value < 6]
    found = loss_of(Loss.CROSS_ENTROPY, logits, label, MEMBERS)
    torch.testing.assert_close(found.double(), torch.stack(terms).mean())


def test_marginal_dice_leaves_out_what_is_not_told(partial: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, label = partial
    probabilities = logits.double().softmax(1).movedim(1, -1).reshape(-1, 4)
    values = label.reshape(-1).tolist()
    ratios = []
    for region in ({0}, {1}, {2}, {3}, {2, 3}, {0, 1}):
        shared = total = 0.0
        for p, value in zip(probabilities, values, strict=True):
            may_be = set(torch.nonzero(MEMBERS[value]).flatten().tolist())
            if may_be <= region or not may_be & region:
                share, target = float(p[list(region)].sum()), float(may_be <= region)
                shared += share * target
                total += share + target
        ratios.append((2 * shared + SMOOTH) / (total + SMOOTH))
    found = loss_of(Loss.DICE, logits, label, MEMBERS)
    assert found.item() == pytest.approx(1 - sum(ratios) / len(ratios), abs=1e-5)


@pytest.mark.parametrize("kind", list(Loss))
def test_where_every_class_is_told_nothing_changes(kind: Loss, partial: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, label = partial[0], partial[1].clamp(max=3)
    torch.testing.assert_close(loss_of(kind, logits, label, MEMBERS[:4]), loss_of(kind, logits, label))
    told_of_nothing = loss_of(Loss.CROSS_ENTROPY, logits, torch.full_like(label, 6), MEMBERS)
    assert told_of_nothing.item() == 0


def test_a_group_label_teaches_the_group_and_nothing_of_its_members() -> None:
    logits = torch.zeros(1, 4, 4, 4, requires_grad=True)
    label = torch.full((1, 4, 4), 4)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(loss_of(Loss.CROSS_ENTROPY_DICE, logits, label, MEMBERS), logits)
        logits = (logits - gradient * 5).detach().requires_grad_()
    found = logits.softmax(1)
    assert found[:, 2:].sum(1).min() > 0.95
    torch.testing.assert_close(found[:, 2], found[:, 3], atol=1e-4, rtol=0)
