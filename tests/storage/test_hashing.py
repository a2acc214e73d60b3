import hashlib
import hmac
from pathlib import Path

import numpy as np

from boneseg.storage.hashing import combine, pseudonym, sha256_array, sha256_file


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 1_000_000)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_array_hash_depends_on_values_shape_and_type_not_on_layout() -> None:
    array = np.arange(12, dtype=np.int16).reshape(3, 4)
    assert sha256_array(array) == sha256_array(np.asfortranarray(array))
    others = (array + 1, array.reshape(4, 3), array.astype(np.int32))
    assert len({sha256_array(array), *(sha256_array(other) for other in others)}) == 4


def test_combined_names_do_not_run_together() -> None:
    assert combine(["ab", "c"]) != combine(["a", "bc"])
    assert combine(["a", "b"]) != combine(["b", "a"])


def test_pseudonym_is_a_keyed_hash() -> None:
    expected = hmac.new(b"key", b"patient\x00P1", hashlib.sha256).hexdigest()[:16]
    assert pseudonym(b"key", "patient", "P1") == expected
    assert pseudonym(b"key", "study", "P1") != expected
    assert pseudonym(b"other", "patient", "P1") != expected
