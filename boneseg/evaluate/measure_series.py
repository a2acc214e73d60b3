"""Every test series measured by every method: one after another on this machine, or spread over a cluster's nodes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import prod

from boneseg.dataset.manifest import ShardRecord
from boneseg.dataset.shards import open_shard
from boneseg.errors import DataError, LabelError, RecordError, SeriesError
from boneseg.evaluate.measure import Subject, Volume, measure, measurement_key
from boneseg.evaluate.methods import Ingredients, Method, build_methods
from boneseg.evaluate.names import NETWORK, THRESHOLD
from boneseg.evaluate.records import Measurement, SeriesResult
from boneseg.models.checkpoint import fetch_model, load_model
from boneseg.pool import Need
from boneseg.progress import track
from boneseg.ray_cluster.pools import pool
from boneseg.scheme import Labelling, LabelScheme
from boneseg.settings.schema import EvaluateSettings
from boneseg.storage.catalogue import Problem
from boneseg.storage.workspace import Workspace

BASE_BYTES, BYTES_PER_VOXEL = 2 << 30, 24
"""What a process that measures series takes at its peak, beside and for the voxels of the series. Measured on volumes
of 512 x 512 x 100 and 250: 0.8 GB and 18 bytes; here with room for Ray and for a large network."""

log = logging.getLogger(__name__)

_loaded: dict[tuple[str, str], Mapping[str, Method]] = {}
"""Methods of the model and settings that this process worked with last: one network at a time stays in memory."""


@dataclass(frozen=True)
class Measured:
    """What became of one series."""

    series: SeriesResult | None
    """None = it cannot be measured; the problems say why."""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class ShardMeasurer:
    """Measures series of a dataset. Elsewhere than here it loads the network itself, once a process.

    Attributes:
        workspace: bucket and local folder.
        model_uri: ``s3://bucket/models/<hash>/``.
        scheme: of the dataset.
        settings: tolerance, threshold.
        ensemble: URIs of models that are measured together, too.
        methods: in the process that has made them; they cross no process border.
    """

    workspace: Workspace
    model_uri: str
    scheme: LabelScheme
    settings: EvaluateSettings
    ensemble: tuple[str, ...] = ()
    methods: Mapping[str, Method] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return ShardMeasurer, (self.workspace, self.model_uri, self.scheme, self.settings, self.ensemble)

    def __call__(self, shard: ShardRecord) -> Measured:
        """Measure one series."""
        subject = shard_subject(self.workspace, shard, self.scheme)
        return measure_subject(subject, self.methods or self._load(), self.settings, self.workspace)

    def _load(self) -> Mapping[str, Method]:
        key = " ".join((self.model_uri, *self.ensemble)), self.settings.model_dump_json()
        if key not in _loaded:
            network, card = load_model(fetch_model(self.workspace, self.model_uri))
            members = tuple(load_model(fetch_model(self.workspace, uri)) for uri in self.ensemble)
            _loaded.clear()
            _loaded[key] = build_methods(Ingredients(network, card, self.settings, members))
        return _loaded[key]


def shard_subject(workspace: Workspace, record: ShardRecord, scheme: LabelScheme) -> Subject:
    """Return a series of a dataset as what is measured; read from the bucket when it is its turn."""

    def load() -> Volume:
        shard = open_shard(workspace, record)
        return Volume(shard.image, shard.label, record.geometry.geometry(), labelling=Labelling(scheme, record.sets))

    return Subject(record.series, record.shard, record.source, record.patient, load)


def measure_shards(measurer: ShardMeasurer, shards: Sequence[ShardRecord]) -> tuple[list[SeriesResult], list[Problem]]:
    """Measure series of a dataset, on the nodes of a cluster where there is one.

    Returns:
        The results in the order of the series, and why some have none.

    Raises:
        DataError: processes were lost over some series, each more than once. Not a problem beside the results: those
            are kept as the model's evaluation on the whole test set.
        StoreError: a shard or the model is not in the bucket.
    """
    found: dict[str, Measured] = {}
    lost: list[str] = []
    with closing(pool(measurer.workspace, here=1, preload=__name__).map(measurer, shards, _need)) as outcomes:
        for outcome in track(outcomes, "evaluate", total=len(shards)):
            if outcome.error is not None:
                raise outcome.error
            if outcome.result is None:
                lost.append(f"{outcome.item.source}: {outcome.lost}")
            else:
                found[outcome.item.shard] = outcome.result
    if lost:
        raise DataError(
            f"{len(lost)} test series could not be measured ({'; '.join(lost[:3])}); give the nodes more memory and "
            "evaluate again: what is measured is kept"
        )
    return collect(found[shard.shard] for shard in shards)


def _need(shard: ShardRecord) -> Need:
    return Need(BASE_BYTES + BYTES_PER_VOXEL * prod(shard.geometry.shape), network=True)


def collect(measured: Iterable[Measured]) -> tuple[list[SeriesResult], list[Problem]]:
    """Return the results, and the problems, of all series."""
    every = list(measured)
    return [one.series for one in every if one.series], [problem for one in every for problem in one.problems]


def measure_subject(
    subject: Subject, methods: Mapping[str, Method], settings: EvaluateSettings, workspace: Workspace | None = None
) -> Measured:
    """Measure one series by every method; one that cannot be read is a problem.

    Args:
        subject: the series.
        methods: by name.
        settings: tolerance.
        workspace: whose bucket keeps measurements; none = they are made anew.
    """
    loaded: list[Volume] = []
    try:
        found = {name: _measurement(method, subject, loaded, settings, workspace) for name, method in methods.items()}
    except (SeriesError, LabelError) as error:
        return Measured(None, (Problem(source=subject.source, reason=str(error)),))
    warnings = [warning for volume in loaded for warning in volume.warnings]
    series = SeriesResult(
        series=subject.series,
        content=subject.content,
        patient=subject.patient,
        network=found.pop(NETWORK),
        threshold=found.pop(THRESHOLD),
        others=found,
    )
    return Measured(series, tuple(Problem(source=subject.source, reason=warning, fatal=False) for warning in warnings))


def _measurement(
    method: Method, subject: Subject, loaded: list[Volume], settings: EvaluateSettings, workspace: Workspace | None
) -> Measurement:
    """Return the measurement kept in the bucket, or make and keep it. ``loaded`` shares the volume of all methods."""
    key = measurement_key(method, subject.content, settings)
    wanted = method.identity, subject.content, settings.surface_tolerance_mm
    kept = workspace.store.read_if_there(key) if workspace is not None else None
    if workspace is not None and kept is not None:
        try:
            found = Measurement.read(kept, workspace.store.uri(key), "it is measured again", must_be_sealed=True)
            if (found.method, found.content, found.tolerance_mm) == wanted:
                return found
        except RecordError as error:
            log.warning("%s", error)
    if not loaded:
        loaded.append(subject.load())
    made = measure(method, subject.content, loaded[0], settings)
    if workspace is not None:
        workspace.store.write(key, made.to_json(), "application/json")
    return made
