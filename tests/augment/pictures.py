"""Pictures for augmentation, and a bound for how often something happens."""

import math

import numpy as np


def random_slice(rows: int, columns: int, seed: int = 0, channels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return random brightness within 0..1 and random labels 0, 2 and 5."""
    rng = np.random.default_rng(seed)
    shape = (rows, columns) if channels is None else (rows, columns, channels)
    return rng.random(shape, dtype=np.float32), rng.choice([0, 2, 5], (rows, columns)).astype(np.uint8)


def blob(size: int = 96) -> np.ndarray:
    """Return a smooth shape off the centre, 1 inside and 0 outside, of at least some pixels' width everywhere."""
    rows, columns = np.mgrid[:size, :size] / size
    inside = (rows - 0.42) ** 2 / 0.09 + (columns - 0.57) ** 2 / 0.04 < 1
    return inside & ((rows - 0.35) ** 2 + (columns - 0.6) ** 2 > 0.08**2)


def assert_share(happened: int, of: int, chance: float) -> None:
    """Check a frequency against a binomial: 4.5 standard deviations are passed once in 150,000 times."""
    assert abs(happened - of * chance) < 4.5 * math.sqrt(of * chance * (1 - chance))
