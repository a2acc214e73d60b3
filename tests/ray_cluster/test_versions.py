"""Which code a cluster runs is compared with the caller's before any work."""

import platform

import pytest
import ray

from boneseg.errors import SettingsError
from boneseg.ray_cluster.versions import Versions, require_same, versions_here

CALLER = Versions("0.1.0+aaaaaaaa", "2.60.0", "3.11")


def test_the_same_code_passes() -> None:
    require_same(CALLER, Versions("0.1.0+aaaaaaaa", "2.60.0", "3.11"))


@pytest.mark.parametrize(
    ("cluster", "named"),
    [
        (Versions("0.1.0+bbbbbbbb", "2.60.0", "3.11"), ("boneseg 0.1.0+aaaaaaaa", "boneseg 0.1.0+bbbbbbbb")),
        (Versions("0.1.0+aaaaaaaa", "2.54.1", "3.11"), ("Ray 2.60.0", "Ray 2.54.1")),
        (Versions("0.1.0+aaaaaaaa", "2.60.0", "3.12"), ("Python 3.11", "Python 3.12")),
    ],
)
def test_a_difference_is_one_sentence_that_names_both(cluster: Versions, named: tuple[str, str]) -> None:
    with pytest.raises(SettingsError) as told:
        require_same(CALLER, cluster)
    text = str(told.value)
    assert text.index(named[0]) < text.index(named[1])
    assert "\n" not in text
    same = {"boneseg", "Ray", "Python"} - {named[0].split()[0]}
    assert not any(f"{name} {value}" in text for name in same for value in ("0.1.0+aaaaaaaa", "2.60.0", "3.11"))


def test_here_are_the_versions_that_run_here() -> None:
    here = versions_here()
    assert here.ray == ray.__version__
    assert platform.python_version().startswith(f"{here.python}.")
    assert here.boneseg.count("+") == 1
