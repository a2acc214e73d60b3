"""Training changes how a processor treats tiny numbers, and changes it back."""

import numpy as np
import pytest

from boneseg.train.loop import denormals_flushed

TINY = np.float32(1e-38)


def halved() -> float:
    return float((np.full(64, TINY) * np.float32(0.25))[0])


def test_tiny_numbers_are_the_callers_again_after_training_even_if_it_fails() -> None:
    with denormals_flushed():
        assert halved() == 0.0
    assert halved() > 0.0
    with pytest.raises(ValueError, match="failed"), denormals_flushed():
        raise ValueError("failed")
    assert halved() > 0.0
