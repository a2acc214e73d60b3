"""Models into the registry and out of it."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from boneseg.dataset.manifest import Dataset
from boneseg.dataset.shards import load_dataset
from boneseg.errors import ModelError
from boneseg.evaluate.records import EvaluationResult, load_evaluation
from boneseg.models.card import CARD_FILE, ModelCard
from boneseg.registry.card import CARD_README, model_card
from boneseg.registry.client import CHALLENGER, CHAMPION, MetricPoint, Registry, Version
from boneseg.registry.gate import Decision, Score, decide
from boneseg.registry.open import open_registry
from boneseg.settings.schema import RunSettings
from boneseg.storage import layout
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace
from boneseg.version import code_version

log = logging.getLogger(__name__)

DECIDED, REASON, EVALUATION_URI, EVALUATION_HASH = "decided", "reason", "evaluation_uri", "evaluation_hash"
"""Tags of a version. ``decided`` is set last: a version without it was interrupted and is decided again."""
PROMOTED = "promoted"


class PublishResult(Record):
    """Where a model is registered and whether it is champion."""

    name: str
    version: str
    promoted: bool
    reason: str
    champion: str
    """Reference of the present champion, such as ``bone:3``."""
    run_id: str
    """Of the MLflow run with settings, metrics and lineage."""
    tracking_uri: str


def publish(
    workspace: Workspace, model_uri: str, evaluation_uri: str, dataset_uri: str, settings: RunSettings
) -> PublishResult:
    """Register a model and make it champion if it is better than the present one on the same frozen test set.

    Publishing the same model with the same evaluation again changes nothing. The data's fingerprint is written down
    last, so that the next scheduled run knows what this one has used.

    Raises:
        StoreError: model, evaluation or dataset are not in the bucket.
        ModelError: the evaluation is of another model, or the registry refuses.
    """
    store, name = workspace.store, settings.publish.model_name
    card_key = store.key(model_uri).rstrip("/") + f"/{CARD_FILE}"
    card = ModelCard.read(store.read(card_key), store.uri(card_key), "train the model again")
    evaluation = load_evaluation(workspace, evaluation_uri)
    dataset = load_dataset(workspace, dataset_uri)
    if evaluation.model_hash != card.model_hash:
        raise ModelError(
            f"{evaluation_uri} measures model {evaluation.model_hash}, not {card.model_hash}; "
            f"evaluate {model_uri} first"
        )
    with open_registry(settings.publish, workspace) as registry:
        version = _registered(registry, name, model_uri, card, evaluation, dataset, workspace)
        if DECIDED in version.tags:
            decision = Decision(promoted=version.tags[DECIDED] == PROMOTED, reason=version.tags[REASON])
        else:
            decision = _decision(workspace, registry, version, evaluation, dataset_uri, settings)
            readme = model_card(card, evaluation, dataset, model_uri, name)
            readme_key = store.key(model_uri).rstrip("/") + f"/{CARD_README}"
            store.write(readme_key, readme.encode(), content_type="text/markdown")
            _conclude(registry, version, decision, readme)
        champion = registry.at_alias(name, CHAMPION)
    state = {"fingerprint": dataset.fingerprint, "dataset_hash": dataset.dataset_hash, "model": version.reference}
    store.write(layout.PUBLISHED_STATE, json.dumps(state, indent=1).encode(), content_type="application/json")
    log.info("publish: %s", decision.reason)
    return PublishResult(
        name=name,
        version=version.version,
        promoted=decision.promoted,
        reason=decision.reason,
        champion=champion.reference if champion else "",
        run_id=version.run_id,
        tracking_uri=registry.address,
    )


def resolve(workspace: Workspace, ref: str, settings: RunSettings) -> Path:
    """Find a model by any of its names and return its local folder.

    Args:
        workspace: where its files come from.
        ref: ``bone@champion``, ``bone@challenger``, ``bone:3``, ``bone`` (its champion), a folder, or
            ``s3://bucket/models/<hash>/``.
        settings: ``publish`` says which registry.

    Raises:
        ModelError: there is no such model; lists what there is.
        StoreError: its files are not in the bucket.
    """
    from boneseg.models.checkpoint import fetch_model  # loads torch

    if Path(ref).is_dir():
        return Path(ref)
    if ref.startswith("s3://"):
        return fetch_model(workspace, ref)
    if "/" in ref:
        raise ModelError(
            f"there is no folder {ref}; name a model's folder, an s3:// URI or a reference such as bone@champion"
        )
    with open_registry(settings.publish, workspace) as registry:
        source = _find(registry, ref).source
    return fetch_model(workspace, source)


def _find(registry: Registry, ref: str) -> Version:
    name, at, alias = ref.partition("@")
    number = ""
    if not at:
        name, _, number = ref.partition(":")
        alias = "" if number else CHAMPION
    names = registry.names()
    if name not in names:
        known = f"there are {', '.join(names)}" if names else "nothing is published yet, run 'boneseg publish' first"
        raise ModelError(f"the registry has no model {name!r}; {known}")
    versions = registry.versions(name)
    for version in versions:
        if (number and version.version == number) or (alias and alias in version.aliases):
            return version
    known = ", ".join(
        f"{item.reference} ({', '.join(item.aliases)})" if item.aliases else item.reference for item in versions
    )
    raise ModelError(f"model {name!r} has no {'version ' + number if number else 'alias ' + alias}; there are {known}")


def _registered(
    registry: Registry,
    name: str,
    model_uri: str,
    card: ModelCard,
    evaluation: EvaluationResult,
    dataset: Dataset,
    workspace: Workspace,
) -> Version:
    """Return the version of this model with this evaluation, made if it is not there."""
    for version in registry.versions(name):
        if (version.source, version.tags.get(EVALUATION_HASH)) == (model_uri, evaluation.evaluation_hash):
            return version
    lineage = {
        "model_hash": card.model_hash,
        "model_uri": model_uri,
        "dataset_hash": dataset.dataset_hash,
        "trained_on_dataset": card.dataset_hash,
        "test_hash": evaluation.test_hash,
        "fingerprint": dataset.fingerprint,
        EVALUATION_HASH: evaluation.evaluation_hash,
        EVALUATION_URI: evaluation.evaluation_uri,
        "report_uri": evaluation.report_uri,
        "code_version": code_version(),
        "commit": os.environ.get("BONESEG_COMMIT", ""),
    }
    run_id = registry.log_run(
        card.run, _params(card), _metrics(card, evaluation), lineage, workspace.store.uri("mlflow")
    )
    return registry.create_version(name, model_uri, run_id, lineage)


def _decision(
    workspace: Workspace,
    registry: Registry,
    version: Version,
    evaluation: EvaluationResult,
    dataset_uri: str,
    settings: RunSettings,
) -> Decision:
    """Compare a version with the champion, measured anew where the test set has grown since."""
    champion = registry.at_alias(version.name, CHAMPION)
    candidate = _score(version.reference, evaluation)
    gain = settings.publish.min_gain
    if champion is None:
        return decide(candidate, None, gain)
    if champion.version == version.version:  # interrupted between the alias and the last tag
        return Decision(promoted=True, reason=version.tags[REASON])
    if not champion.source.startswith(workspace.store.uri("")):
        raise ModelError(
            f"{champion.reference}, the champion, is {champion.source}, outside bucket {workspace.store.bucket}; set "
            "publish.model_name to a name that belongs to this bucket alone"
        )
    if not workspace.store.exists(workspace.store.key(champion.source).rstrip("/") + f"/{CARD_FILE}"):
        return decide(candidate, None, gain, lost=champion.reference)
    if champion.tags.get("test_hash") == evaluation.test_hash:
        measured = load_evaluation(workspace, champion.tags[EVALUATION_URI])
    else:
        from boneseg.evaluate.evaluate import evaluate  # loads torch: seconds that most calls need not wait

        log.info("publish: measuring the champion %s on the present test set", champion.reference)
        measured = evaluate(workspace, champion.source, dataset_uri, settings.evaluate)
    return decide(candidate, _score(champion.reference, measured), gain)


def _conclude(registry: Registry, version: Version, decision: Decision, readme: str) -> None:
    registry.describe(version, f"{decision.reason}\n\n{readme}")
    registry.tag(version, REASON, decision.reason)
    registry.set_alias(version, CHALLENGER)
    if decision.promoted:
        registry.set_alias(version, CHAMPION)
    registry.tag(version, DECIDED, PROMOTED if decision.promoted else "not promoted")


def _score(reference: str, evaluation: EvaluationResult) -> Score:
    return Score(
        reference=reference,
        model_hash=evaluation.model_hash,
        test_hash=evaluation.test_hash,
        by_series=evaluation.bone_dice_by_series(),
        patients=evaluation.patients(),
    )


def _params(card: ModelCard) -> dict[str, str]:
    settings = {"model": card.model.model_dump(mode="json"), "train": card.train.model_dump(mode="json")}
    return _flat(settings)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return found


def _metrics(card: ModelCard, evaluation: EvaluationResult) -> list[MetricPoint]:
    points = [MetricPoint(key=f"test_{key}", value=value) for key, value in evaluation.scalars().items()]
    for epoch in card.history:
        for key, value in epoch.model_dump(exclude={"epoch"}).items():
            parts = {"": value} if not isinstance(value, tuple) else dict(zip(card.classes, value, strict=True))
            for label, part in parts.items():
                metric = f"{key}_{label}".rstrip("_").replace(" ", "_")
                points.append(MetricPoint(key=metric, value=part, step=epoch.epoch))
    return points
