"""What prepare makes: shards, and the dataset that lists them."""

from __future__ import annotations

import numpy as np

from boneseg.scheme import BONE_SCHEME, Labelling, LabelScheme
from boneseg.settings.schema import Split
from boneseg.storage.catalogue import GeometryRecord, ObjectRef, Problem
from boneseg.storage.hashing import combine
from boneseg.storage.records import Record


class ShardRecord(Record):
    """One prepared series, beside ``image.npy`` (int16 HU) and ``label.npy`` (uint8), both (slice, row, column).

    Both arrays are in axial order (see ``geometry.to_axial``).
    """

    shard: str
    """Hash of all that the shard is made from: series, label, settings and the version of this code."""
    series: str
    source: str
    patient: str
    study: str
    geometry: GeometryRecord
    hu_range: tuple[int, int]
    class_counts: tuple[tuple[int, ...], ...]
    """Pixels of each label value, one row a slice."""
    outline_computed: bool
    """Whether the patient outline was computed here because the label held only bone."""
    pixel_hash: str
    """Hash of the HU alone: equal for copies of a series under other identities."""
    image: ObjectRef
    """``image.npy`` in the bucket."""
    label: ObjectRef
    """``label.npy`` in the bucket."""
    warnings: tuple[str, ...] = ()
    """What is odd about the series but does not keep it from being used."""
    patient_by: str = ""
    """How its patient was told: see ``SeriesRow``, as for the three below."""
    asked: Split | None = None
    pixels: str = ""
    links: tuple[str, ...] = ()
    sets: tuple[tuple[int, ...], ...] = ()
    """What label values above the classes stand for: see ``scheme.labelling``."""

    def counts_in(self, labelling: Labelling) -> tuple[tuple[int, ...], ...]:
        """Return ``class_counts`` by the values of a labelling that has all sets of this one."""
        places = Labelling(labelling.scheme, self.sets).table_to(labelling)
        rows = np.zeros((len(self.class_counts), labelling.size), dtype=np.int64)
        rows[:, places] = self.class_counts
        return tuple(tuple(row) for row in rows.tolist())


class DatasetEntry(Record):
    """A shard and its split."""

    split: Split
    shard: ShardRecord


class Dataset(Record):
    """A frozen dataset. Its hash covers shards and splits, nothing else."""

    dataset_hash: str
    test_hash: str
    """Hash of the test part alone: two models with the same one are comparable."""
    fingerprint: str
    """Of the catalogue it was made from."""
    scheme: LabelScheme = BONE_SCHEME
    """What the values of the labels mean."""
    entries: tuple[DatasetEntry, ...]
    problems: tuple[Problem, ...]

    @staticmethod
    def made_of(
        fingerprint: str,
        entries: tuple[DatasetEntry, ...],
        problems: tuple[Problem, ...],
        scheme: LabelScheme = BONE_SCHEME,
    ) -> Dataset:
        """Name a dataset by what it holds."""
        dataset_hash, test_hash = _hashes(scheme, entries)
        return Dataset(
            dataset_hash=dataset_hash,
            test_hash=test_hash,
            fingerprint=fingerprint,
            scheme=scheme,
            entries=entries,
            problems=problems,
        )

    @property
    def is_as_named(self) -> bool:
        """Whether both hashes are those of the content."""
        return _hashes(self.scheme, self.entries) == (self.dataset_hash, self.test_hash)

    @property
    def labelling(self) -> Labelling:
        """The scheme, and all sets of classes that labels of the dataset use."""
        own = (Labelling(self.scheme, entry.shard.sets) for entry in self.entries)
        return Labelling(self.scheme).joined(*own)

    def of(self, split: Split) -> tuple[ShardRecord, ...]:
        """Return the shards of one split."""
        return tuple(entry.shard for entry in self.entries if entry.split == split)

    @property
    def validates_on_training(self) -> bool:
        """Whether validation holds training series, for want of patients: then it says nothing of other patients."""
        trained = {record.shard for record in self.of(Split.TRAIN)}
        return any(record.shard in trained for record in self.of(Split.VALIDATION))


def _hashes(scheme: LabelScheme, entries: tuple[DatasetEntry, ...]) -> tuple[str, str]:
    members = sorted(f"{entry.split} {entry.shard.shard}" for entry in entries)
    tested = [member for member in members if member.startswith(Split.TEST)]
    return combine([*scheme.naming, *members]), combine([*scheme.naming, *tested])
