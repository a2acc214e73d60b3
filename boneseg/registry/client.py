"""MLflow's model registry behind the few verbs that boneseg needs (the only place that imports mlflow).

Bytes do not go through MLflow: boneseg keeps models, tables and plots in the bucket, and the registry points there.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import md5
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")

import sqlalchemy
from alembic.util import CommandError
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    RESOURCE_ALREADY_EXISTS,
    ErrorCode,
)
from mlflow.store.db import utils as tables
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from boneseg.errors import ModelError
from boneseg.redaction import redacted
from boneseg.storage.records import Record

CHAMPION, CHALLENGER = "champion", "challenger"
EXPERIMENT = "boneseg"
TAG_LIMIT = 4500
"""Characters; MLflow refuses tags of more than 5000."""
BATCH, PARAMS = 500, 100
"""Metrics and settings a request; MLflow refuses more than 1000 and 100."""
IDENTIFYING = ("model_hash", "evaluation_hash")
"""Tags by which a run is found again."""
_migrating = threading.Lock()
"""Alembic works on one database of a process at a time."""
_DISK_FULL = ("database or disk is full", "disk I/O error")


class Version(Record):
    """A registered model version."""

    name: str
    version: str
    source: str
    """URI of the model's folder in the bucket."""
    run_id: str
    aliases: tuple[str, ...]
    tags: dict[str, str]

    @property
    def reference(self) -> str:
        """Return what a person writes to mean it, such as ``bone:3``."""
        return f"{self.name}:{self.version}"


class MetricPoint(Record):
    """One value of a metric; ``step`` counts epochs, 0 for what is measured once."""

    key: str
    value: float
    step: int = 0


class Registry:
    """A model registry at a tracking URI.

    Every method raises ModelError, with the tracking URI and the fix, where the registry does not answer or refuses.
    """

    def __init__(
        self, tracking_uri: str, shown_as: str | None = None, confirm: Callable[[], None] = lambda: None
    ) -> None:
        """Connect.

        Args:
            tracking_uri: of MLflow.
            shown_as: where the registry is for a person; none = the tracking URI.
            confirm: called before a decision is made public, so that two of them cannot both pass.
        """
        self.tracking_uri = tracking_uri
        self.address = redacted(shown_as or tracking_uri)
        """Where the registry is, as it may be shown: without user and password."""
        self.confirm = confirm
        with self._translated(), _quiet():
            self._client = MlflowClient(tracking_uri, tracking_uri)
            self._client.search_registered_models(max_results=1)

    def close(self) -> None:
        """Let go of the file of an embedded registry, and of what MLflow left of it elsewhere."""
        engines = [SqlAlchemyStore._engine_map.pop(self.tracking_uri, None)]
        engines.append(getattr(self._client._get_registry_client().store, "engine", None))  # type: ignore[no-untyped-call]
        for engine in engines:
            if engine is not None:
                engine.dispose()
        lock = md5(self.tracking_uri.encode(), usedforsecurity=False).hexdigest()
        with suppress(OSError):
            Path(tempfile.gettempdir(), f"db_init_lock-{lock}").unlink(missing_ok=True)

    def names(self) -> tuple[str, ...]:
        """Return the names of all models."""
        with self._translated():
            return tuple(model.name for model in self._client.search_registered_models())

    def versions(self, name: str) -> tuple[Version, ...]:
        """Return all versions of a model, the newest first."""
        with self._translated():
            found = self._client.search_model_versions(f"name = '{_safe(name)}'")
            newest_first = sorted(found, key=lambda item: int(item.version), reverse=True)
            # A search leaves aliases out; the model has them.
            aliases = self._client.get_registered_model(name).aliases if newest_first else {}
        return tuple(_version(item, aliases) for item in newest_first)

    def at_alias(self, name: str, alias: str) -> Version | None:
        """Return the version an alias points at; none where there is none."""
        return next((version for version in self.versions(name) if alias in version.aliases), None)

    def create_version(self, name: str, source: str, run_id: str, tags: Mapping[str, str]) -> Version:
        """Register a pointer to a model's folder in the bucket; the model's name is made at first use."""
        with self._translated(), _quiet():
            try:
                self._client.create_registered_model(_safe(name))
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise
            made = self._client.create_model_version(name, source, run_id, tags=dict(tags))
        return _version(made, {})

    def set_alias(self, version: Version, alias: str) -> None:
        """Point an alias at a version, away from the one it pointed at."""
        with self._translated():
            self._client.set_registered_model_alias(version.name, alias, version.version)

    def tag(self, version: Version, key: str, value: str) -> None:
        """Set a tag of a version."""
        with self._translated():
            self._client.set_model_version_tag(version.name, version.version, key, value[:TAG_LIMIT])

    def describe(self, version: Version, description: str) -> None:
        """Set the description of a version, Markdown; MLflow's databases hold 5000 characters of it."""
        with self._translated():
            self._client.update_model_version(version.name, version.version, description[:TAG_LIMIT])

    def log_run(
        self, name: str, params: Mapping[str, str], metrics: Sequence[MetricPoint], tags: Mapping[str, str], place: str
    ) -> str:
        """Record a finished run, or find the one with the same tags.

        Args:
            name: shown in the list of runs.
            params: settings by name.
            metrics: values that are not finite are left out.
            tags: lineage: hashes and URIs.
            place: ``s3://`` URI under which MLflow's own artifacts of the experiment would go.

        Returns:
            The run's id.
        """
        now = int(time.time() * 1000)
        points = [Metric(point.key, point.value, now, point.step) for point in metrics if math.isfinite(point.value)]
        notes = {key: value[:TAG_LIMIT] for key, value in tags.items()}
        with self._translated(), _quiet():
            experiment = self._experiment(place)
            known = self._runs(experiment, notes)
            for run in known:
                if run.info.status != "FINISHED":  # a publish was stopped here
                    self._client.delete_run(run.info.run_id)
            finished = [str(run.info.run_id) for run in known if run.info.status == "FINISHED"]
            if finished:
                return finished[0]
            run_id = str(self._client.create_run(experiment, run_name=name, tags=notes).info.run_id)
            self._log_params(run_id, params)
            for start in range(0, len(points), BATCH):
                self._client.log_batch(run_id, metrics=points[start : start + BATCH])
            self._client.set_terminated(run_id)
        return run_id

    def open_run(self, name: str, params: Mapping[str, str], tags: Mapping[str, str], place: str) -> tuple[str, int]:
        """Start the record of a training run that goes on, or find it.

        Args:
            name: shown in the list of runs.
            params: settings by name, noted when it starts.
            tags: by which it is found again; among them no tag of a published model.
            place: as in ``log_run``.

        Returns:
            The run's id, and the last step that it has metrics of; 0 = none.
        """
        with self._translated(), _quiet():
            experiment = self._experiment(place)
            wanted = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
            known = self._client.search_runs([experiment], wanted)
            if known:
                run_id = str(known[0].info.run_id)
                self._client.update_run(run_id, status="RUNNING")
                history = [self._client.get_metric_history(run_id, key) for key in known[0].data.metrics]
                return run_id, max((point.step for points in history for point in points), default=0)
            run_id = str(self._client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id)
            self._log_params(run_id, params)
        return run_id, 0

    def log_points(self, run_id: str, metrics: Sequence[MetricPoint]) -> None:
        """Add metrics to a run; values that are not finite are left out."""
        now = int(time.time() * 1000)
        points = [Metric(point.key, point.value, now, point.step) for point in metrics if math.isfinite(point.value)]
        with self._translated(), _quiet():
            for start in range(0, len(points), BATCH):
                self._client.log_batch(run_id, metrics=points[start : start + BATCH])

    def end_run(self, run_id: str, finished: bool) -> None:
        """Note that a run is over, or was stopped."""
        with self._translated(), _quiet():
            self._client.set_terminated(run_id, "FINISHED" if finished else "KILLED")

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        settings = [Param(key, value[:TAG_LIMIT]) for key, value in params.items()]
        for start in range(0, len(settings), PARAMS):
            self._client.log_batch(run_id, params=settings[start : start + PARAMS])

    def _runs(self, experiment: str, tags: Mapping[str, str]) -> list[Run]:
        """Return the runs with just these tags."""
        wanted = " and ".join(f"tags.{key} = '{tags[key]}'" for key in IDENTIFYING if key in tags)
        found = self._client.search_runs([experiment], wanted)
        return [run for run in found if all(run.data.tags.get(key) == value for key, value in tags.items())]

    def _experiment(self, place: str) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=place))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
            raise ModelError(_explain(error, self.address)) from error


def bring_up_to_date(path: Path) -> None:
    """Make MLflow's tables in a SQLite file, or bring those of an earlier MLflow to this one's.

    Raises:
        ModelError: a later MLflow made it, or the disk is full.
    """
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    try:
        with _migrating, _quiet():
            if not tables._all_tables_exist(engine):  # type: ignore[no-untyped-call]
                tables._initialize_tables(engine)  # type: ignore[no-untyped-call]
            elif _revision(engine) != _latest():
                tables._upgrade_db(engine)  # type: ignore[no-untyped-call]
    except CommandError as error:
        raise ModelError("a later version of MLflow wrote the registry; update boneseg") from error
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
        raise ModelError(_explain(error, str(path.parent))) from error
    finally:
        engine.dispose()


def _revision(engine: sqlalchemy.Engine) -> str:
    return str(tables._get_schema_version(engine))  # type: ignore[no-untyped-call]


def _latest() -> str:
    return str(tables._get_latest_schema_revision())  # type: ignore[no-untyped-call]


def _explain(error: Exception, address: str) -> str:
    reason = redacted(str(error).splitlines()[0].rstrip("."))
    if any(mark in reason for mark in _DISK_FULL):
        place = Path(os.environ.get("BONESEG_HOME", ".boneseg")).absolute()
        return f"the disk is full at {place}; free some space or set BONESEG_HOME to another disk, then start again"
    said = "does not answer" if "failed with exception" in reason else f"answered: {reason}"
    return f"the model registry at {address} {said}; check publish.tracking_uri or MLFLOW_TRACKING_URI"


def _version(item: ModelVersion, aliases: Mapping[str, str]) -> Version:
    pointing = sorted(alias for alias, version in aliases.items() if str(version) == str(item.version))
    return Version(
        name=item.name,
        version=str(item.version),
        source=item.source or "",
        run_id=item.run_id or "",
        aliases=tuple(pointing),
        tags={key: str(value) for key, value in item.tags.items()},
    )


def _safe(name: str) -> str:
    if not name or not name.isprintable() or any(mark in name for mark in "/:'\"%@ "):
        raise ModelError(f"model name {name!r} must not be empty nor hold spaces, quotes or any of / : @ %")
    return name


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the notes of MLflow and of its database migrations out of the user's log."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "mlflow.store.db.utils")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
