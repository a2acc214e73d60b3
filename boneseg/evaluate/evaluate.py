"""A trained network measured on a test set, beside the other methods: series by series, then tables and a report."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from boneseg.atomic_write import atomic_write_bytes
from boneseg.dataset.manifest import Dataset
from boneseg.dataset.shards import load_dataset
from boneseg.errors import DataError, RecordError
from boneseg.evaluate.files import Study, write_files
from boneseg.evaluate.forms import shortened, to_markdown
from boneseg.evaluate.measure import Subject, Volume
from boneseg.evaluate.measure_series import ShardMeasurer, collect, measure_shards, measure_subject, shard_subject
from boneseg.evaluate.methods import Ingredients, build_methods
from boneseg.evaluate.records import (
    EvaluationResult,
    SplitSummary,
    evaluation_identity,
    read_evaluation,
)
from boneseg.identity import stable_hash
from boneseg.ingest.concealed import conceal_problems, conceal_row, with_file_tokens
from boneseg.ingest.local import local_series
from boneseg.ingest.read import read_labelled
from boneseg.models.checkpoint import fetch_model, load_model
from boneseg.progress import track
from boneseg.ray_cluster.pools import stays_here
from boneseg.scheme import LabelScheme
from boneseg.settings.schema import EvaluateSettings, PrepareSettings, Split
from boneseg.storage import layout
from boneseg.storage.catalogue import ObjectRef, Problem, SeriesRow, patients_sentence
from boneseg.storage.client import ObjectStore
from boneseg.storage.hashing import combine
from boneseg.storage.local_pseudonyms import local_secret, save_local_names
from boneseg.storage.pseudonyms import Names
from boneseg.storage.scratch import scratch_folder
from boneseg.storage.workspace import Workspace

log = logging.getLogger(__name__)

RESULT_FILE = "evaluation.json"
CONTENT_TYPES = {".html": "text/html", ".json": "application/json", ".csv": "text/csv", ".png": "image/png"}


def evaluate(
    workspace: Workspace, model_uri: str, dataset_uri: str, settings: EvaluateSettings, ensemble: Sequence[str] = ()
) -> EvaluationResult:
    """Measure a model on a dataset's test split.

    The result is named by model, test set, settings and the version of this code: what is there is used again. So is
    each measurement of one method on one series, also by other evaluations. On a cluster the series go to its nodes.

    Args:
        workspace: bucket and local folder.
        model_uri: ``s3://bucket/models/<hash>/``.
        dataset_uri: as prepare returned it.
        settings: tolerance, threshold, resamples.
        ensemble: URIs of models that are measured together, as one method beside the model; none = no ensemble.

    Raises:
        DataError: the dataset has no test series, or some cost their processes.
        ModelError: a model cannot be loaded, or those of the ensemble tell different classes apart.
        StoreError: a shard or the model is not in the bucket.
    """
    store, dataset = workspace.store, load_dataset(workspace, dataset_uri)
    shards = dataset.of(Split.TEST)
    if not shards:
        raise DataError(
            f"dataset {dataset.dataset_hash} has no test series; add patients or raise prepare.splits.test, "
            "then prepare again"
        )
    together = tuple(sorted({hash_in(uri): uri for uri in ensemble}.items()))
    hashes = tuple(model_hash for model_hash, _ in together)
    identity = evaluation_identity(hash_in(model_uri), dataset.test_hash, settings, hashes)
    kept = _find(store, identity)
    if kept is not None:
        return kept.model_copy(update={"reused": True})
    network, card = load_model(fetch_model(workspace, model_uri))
    members = tuple(load_model(fetch_model(workspace, uri)) for _, uri in together)
    methods = build_methods(Ingredients(network, card, settings, members))
    uris = tuple(uri for _, uri in together)
    measurer = ShardMeasurer(workspace, model_uri, dataset.scheme, settings, uris, methods)
    series, problems = measure_shards(measurer, shards)
    subjects = [shard_subject(workspace, shard, dataset.scheme) for shard in shards]
    study = Study(
        evaluation_hash=identity,
        place=store.uri(layout.evaluation(identity)).rstrip("/"),
        card=card,
        test_hash=dataset.test_hash,
        dataset_hash=dataset.dataset_hash,
        settings=settings,
        data=_split_summaries(dataset),
        series=tuple(series),
        problems=(*dataset.problems, *problems),
        patients=patients_sentence((entry.shard.patient, entry.shard.patient_by) for entry in dataset.entries),
        validates_on_training=dataset.validates_on_training,
        ensemble=hashes,
    )
    with (
        _writable(workspace.folder, "free some space there"),
        scratch_folder(workspace.folder, "evaluation-") as folder,
    ):
        result = write_files(folder, study, subjects, methods)
        for file in result.files:
            content = CONTENT_TYPES.get(Path(file).suffix, "text/plain")
            store.upload(folder / file, layout.evaluation(identity, file), content)
    store.write(layout.evaluation(identity, RESULT_FILE), result.to_json(), "application/json")
    return result


def hash_in(model_uri: str) -> str:
    """Return the model's hash that its URI ends in."""
    return model_uri.rstrip("/").rpartition("/")[2]


def _find(store: ObjectStore, identity: str) -> EvaluationResult | None:
    """Return an evaluation that is whole in the bucket, else none."""
    key = layout.evaluation(identity, RESULT_FILE)
    data = store.read_if_there(key)
    if data is None:
        return None
    try:
        found = read_evaluation(data, store.uri(key), "it is made anew")
    except RecordError as error:
        log.warning("%s", error)
        return None
    return found if found.evaluation_hash == identity else None


def evaluate_folder(
    model_folder: Path,
    data: Path,
    out: Path,
    settings: EvaluateSettings,
    prepare: PrepareSettings,
    home: Path | None = None,
    ensemble: Sequence[Path] = (),
) -> EvaluationResult:
    """Measure a model on every labelled series of a folder.

    That is done on this machine: the nodes of a cluster do not see its folders.

    Args:
        model_folder: ``model.safetensors`` and ``card.json``.
        data: CT series (DICOM, NIfTI) with labels beside them, at any depth.
        out: gets ``report.html``, tables, plots and, last, ``evaluation.json``.
        settings: tolerance, threshold, resamples.
        prepare: how irregular a series may be, and what label values mean.
        home: work folder, where the table that leads from stand-ins back to folders is kept; none = nowhere.
        ensemble: folders of models that are measured together, as one method beside the model; none = no ensemble.

    Raises:
        DataError: no series of the folder can be measured, or the results cannot be written.
        ModelError: a model cannot be loaded, or those of the ensemble tell different classes apart.
    """
    stays_here("evaluate --data")
    network, card = load_model(model_folder)
    together = {found.model_hash: (member, found) for member, found in map(load_model, ensemble)}
    hashes = tuple(sorted(together))
    methods = build_methods(Ingredients(network, card, settings, tuple(together[name] for name in hashes)))
    local = _Local(data, local_secret(home) if home is not None else secrets.token_bytes(32))
    problems = local.problems
    unlabelled = [
        Problem(source=row.source, reason="the series has no label, so there is nothing to measure against")
        for row in local.rows
        if row.label is None
    ]
    subjects = [local.subject(row, prepare, card.scheme) for row in local.rows if row.label is not None]
    series, found = collect(measure_subject(subject, methods, settings) for subject in track(subjects, "evaluate"))
    problems = (*problems, *unlabelled, *conceal_problems(found, local.names))
    if home is not None:
        save_local_names(home, local.names.given)
    if not series:
        shown = [problem for problem in problems if problem.fatal][:3] or problems[:3]
        reasons = "; ".join(f"{problem.source}: {problem.reason}" for problem in shown)
        raise DataError(f"{data} holds no CT series with a usable label{f' ({reasons})' if reasons else ''}")
    test_hash = combine(sorted(row.content for row in series))
    study = Study(
        evaluation_hash=evaluation_identity(card.model_hash, test_hash, settings, hashes),
        place=str(out),
        card=card,
        test_hash=test_hash,
        dataset_hash=None,
        settings=settings,
        data=(_summary("test", [(row.patient, row.images) for row in series]),),
        series=tuple(series),
        problems=problems,
        patients=patients_sentence((row.patient, row.patient_by) for row in local.rows if row.label is not None),
        ensemble=hashes,
    )
    with _writable(out, "free some space there or choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
        (out / RESULT_FILE).unlink(missing_ok=True)
        result = write_files(out, study, subjects, methods)
        atomic_write_bytes(out / RESULT_FILE, result.to_json())
    return result


def markdown_tables(result: EvaluationResult) -> str:
    """Return every table as Markdown; of many bones the lowest."""
    return "\n".join(to_markdown(shortened(table)) for table in result.tables)


@contextmanager
def _writable(folder: Path, fix: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{folder}: cannot write the evaluation ({error.strerror}); {fix}") from error


class _Local:
    """The series of a folder by stand-ins, so that neither a report nor a log names its folders.

    Args:
        folder: with series and labels.
        secret: of the keyed hashes.
    """

    def __init__(self, folder: Path, secret: bytes) -> None:
        rows, problems = local_series(folder, secret)
        root = folder.absolute().parent if folder.is_file() else folder.absolute()
        files = {item.sha256: Path(item.key) for row in rows for item in _objects(row)}
        paths = {sha256: path.relative_to(root).as_posix() for sha256, path in files.items()}
        below = (path.relative_to(root).as_posix() for path in root.rglob("*")) if folder.is_dir() else paths.values()
        self.names = Names(secret, below).with_series(row.source for row in rows)
        self._files = files
        self.rows = [with_file_tokens(conceal_row(row, self.names), self.names, paths) for row in rows]
        self.problems = conceal_problems(problems, self.names)

    def subject(self, row: SeriesRow, prepare: PrepareSettings, scheme: LabelScheme) -> Subject:
        """Return a labelled series as what is measured."""

        def load() -> Volume:
            found = read_labelled(lambda ref: self._files[ref.sha256], row, prepare, scheme)
            return Volume(found.hu, found.label, found.geometry, found.labelling, found.warnings)

        label = row.label.content if row.label is not None else ""
        content = combine([row.series, label, stable_hash(prepare.model_dump(mode="json", include={"label_map"}))])
        return Subject(row.series, content, row.source, row.patient, load)


def _objects(row: SeriesRow) -> list[ObjectRef]:
    return [*row.objects, *(row.label.objects if row.label is not None else ())]


def _split_summaries(dataset: Dataset) -> tuple[SplitSummary, ...]:
    return tuple(
        _summary(split, [(shard.patient, len(shard.class_counts)) for shard in dataset.of(split)]) for split in Split
    )


def _summary(split: str, rows: Sequence[tuple[str, int]]) -> SplitSummary:
    return SplitSummary(
        split=split,
        series=len(rows),
        patients=len({patient for patient, _ in rows}),
        slices=sum(slices for _, slices in rows),
    )
