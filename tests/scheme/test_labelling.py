import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boneseg.scheme import BUILT_IN, Labelling
from boneseg.scheme.labelling import MIXED, take

PELVIS = BUILT_IN["pelvis"]
HIPS, BONES, REST = (2, 3), PELVIS.bones, (1, 4, 5)

set_of_classes = st.lists(st.integers(0, PELVIS.size - 1), min_size=2, max_size=5, unique=True).map(
    lambda values: tuple(sorted(values))
)


def test_members_and_roles_of_values() -> None:
    labelling = Labelling(PELVIS, (HIPS, BONES, REST))
    assert labelling.size == 11
    np.testing.assert_array_equal(labelling.members[:8], np.eye(8, dtype=bool))
    assert [tuple(np.flatnonzero(row)) for row in labelling.members[8:]] == [HIPS, BONES, REST]
    assert labelling.roles.tolist() == [0, 1, 2, 2, 2, 2, 2, 2, 2, 2, MIXED]
    assert labelling.bony.tolist() == [2, 3, 4, 5, 6, 7, 8, 9]


@given(st.lists(set_of_classes, max_size=4, unique=True), st.lists(set_of_classes, max_size=4, unique=True))
def test_joining_keeps_the_meaning_of_every_value_and_can_be_mirrored(
    one: list[tuple[int, ...]], two: list[tuple[int, ...]]
) -> None:
    first, second = Labelling(PELVIS, tuple(one)), Labelling(PELVIS, tuple(two))
    both = first.joined(second)
    for own in (first, second):
        np.testing.assert_array_equal(both.members[own.table_to(both)], own.members)
    np.testing.assert_array_equal(both.mirrored[both.mirrored], np.arange(both.size))
    swapped = both.members[:, list(PELVIS.mirrored)]
    np.testing.assert_array_equal(both.members[both.mirrored], swapped)


@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 7), (0, 5, 7)])
def test_take_looks_every_value_up(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 9, shape).astype(np.uint8)
    table = np.arange(9, dtype=np.uint8)[::-1].copy()
    np.testing.assert_array_equal(take(table, values), table[values])
