"""An exponential moving average of a network's weights, which is then what is validated and saved."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from boneseg.train.training_state import TrainingState, Weights


class WeightAverage:
    """A network's average, brought up to date after each optimizer step.

    The statistics of batch normalisation are averaged as the weights are: they belong to the weights they were
    measured with. Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992.

    Args:
        network: as it is when training starts or goes on.
        decay: of the average, once there are enough steps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._average = AveragedModel(network, use_buffers=True)
        self._steps = 0

    @property
    def network(self) -> nn.Module:
        """The averaged network."""
        found: nn.Module = self._average.module
        return found

    @property
    def weights(self) -> Weights:
        """Its weights and buffers, by the names that the network itself gives them."""
        return self.network.state_dict()

    def go_on(self, state: TrainingState, steps: int) -> None:
        """Take the average as an interruption left it, after some steps."""
        self.network.load_state_dict(state.averaged)
        self._steps = steps
        self._average.n_averaged.fill_(steps)

    def update(self, network: nn.Module) -> None:
        """Take in what a step has made of the network."""
        self._average.multi_avg_fn = get_ema_multi_avg_fn(  # type: ignore[no-untyped-call]
            decay_of(self._steps, self._decay)
        )
        self._average.update_parameters(network)
        self._steps += 1


def decay_of(steps: int, decay: float) -> float:
    """Return the decay after some steps: less at first, or the random weights of the start would weigh for long.

    (1 + steps) / (10 + steps) until that is more than ``decay``: TensorFlow's ``ExponentialMovingAverage``.
    """
    return min(decay, (1 + steps) / (10 + steps))
