"""From stored values to HU, against exact arithmetic, and from HU to what a network sees."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boneseg.hu import normalise, to_hu


@given(
    kind=st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "f4", "f8"]),
    values=st.lists(st.integers(-(2**31), 2**32 - 1), min_size=1, max_size=20),
    eighths=st.integers(1, 80),
    intercept=st.sampled_from([-8192.0, -1024.0, -1000.5, 0.0, 0.25, 300.0]),
)
def test_hu_are_what_exact_arithmetic_gives(kind: str, values: list[int], eighths: int, intercept: float) -> None:
    # Single precision would round large products; nothing stores CT so.
    limits = np.iinfo(kind) if kind[0] in "iu" else np.iinfo("i2")
    stored = np.array([min(max(value, limits.min), limits.max) for value in values], dtype=kind)
    exact = [round(Fraction(int(value)) * Fraction(eighths, 8) + Fraction(intercept)) for value in stored]
    found = to_hu(stored, eighths / 8, intercept)
    assert found.dtype == np.int16
    assert found.tolist() == [min(max(value, -1024), 32767) for value in exact]


def test_what_is_no_number_is_air() -> None:
    values = np.array([math.nan, math.inf, -math.inf, 40.4, 40.5, 41.5])
    assert to_hu(values).tolist() == [-1024, -1024, -1024, 40, 40, 42]


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_the_window_becomes_zero_to_one_and_the_rest_is_clipped(kind: type) -> None:
    values = normalise(np.array([-1024, -500, 400, 1300, 3071], dtype=kind), (-500, 1300))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [0, 0, 0.5, 1, 1], atol=1e-6)
