"""Models into the registry and out of it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from boneseg.dataset.manifest import Dataset
from boneseg.dataset.shards import load_dataset
from boneseg.errors import ModelError, RecordError, StoreError
from boneseg.evaluate.records import BONE_GROUP, EvaluationResult, evaluation_identity, load_evaluation
from boneseg.identity import flattened
from boneseg.models.card import CARD_FILE, ModelCard
from boneseg.registry.champion import Decision, Score, by_hand, decide
from boneseg.registry.client import CHALLENGER, CHAMPION, MetricPoint, Registry, Version
from boneseg.registry.model_readme import CARD_README, model_card
from boneseg.registry.open import change_registry, read_registry
from boneseg.scheme.record import plain
from boneseg.settings.schema import RunSettings, Split
from boneseg.storage import layout
from boneseg.storage.published import Published, read_published, write_published
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace
from boneseg.version import code_version

log = logging.getLogger(__name__)

DECIDED, REASON, EVALUATION_URI, EVALUATION_HASH = "decided", "reason", "evaluation_uri", "evaluation_hash"
"""Tags of a version. ``decided`` is set last: a version without it, or that is ``deciding``, was interrupted and is
decided again."""
PROMOTED, DECIDING = "promoted", "deciding"
HEADLINE, MIN_GAIN = "headline", "min_gain"
"""Tags of the rule that a version was decided by; versions of before that were decided by bone."""


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


@dataclass(frozen=True)
class _Given:
    """What is published."""

    model_uri: str
    card: ModelCard
    evaluation: EvaluationResult
    """By the present version of the code."""
    names: frozenset[str]
    """Hashes of this evaluation, and of the one of an earlier version that it was asked for with."""
    dataset_uri: str
    dataset: Dataset


def publish(
    workspace: Workspace,
    model_uri: str,
    evaluation_uri: str,
    dataset_uri: str,
    settings: RunSettings,
    promote: bool = False,
) -> PublishResult:
    """Register a model and make it champion if it is surely better than the present one on the same frozen test set.

    Publishing the same model with the same evaluation again changes nothing, unless it is no champion and
    ``publish.headline`` or ``publish.min_gain`` changed: then it is decided again. Stopped at any point and started
    again it ends as if it had not been stopped. The data's fingerprint is written down last, so that the next
    scheduled run knows what this one has used.

    Args:
        workspace: bucket and local folder.
        model_uri: ``s3://bucket/models/<hash>/``.
        evaluation_uri: of the model on the dataset's test set.
        dataset_uri: as prepare returned it.
        settings: ``publish`` says under which name and where.
        promote: a person's decision: it becomes champion whatever was measured.

    Raises:
        StoreError: model, evaluation or dataset are not in the bucket.
        ModelError: the evaluation is of another model or test set, or the registry refuses.
        RecordError: model card, evaluation or dataset are damaged or were changed by hand.
    """
    store, name = workspace.store, settings.publish.model_name
    _, state = read_published(store, name)
    given = _checked(workspace, model_uri.rstrip("/") + "/", evaluation_uri, dataset_uri)
    headline = _headline(given.evaluation, settings.publish.headline)
    result, decision = change_registry(
        settings.publish, workspace, lambda registry: _publish(workspace, registry, given, settings, headline, promote)
    )
    fingerprint, dataset_hash = given.dataset.fingerprint, given.dataset.dataset_hash
    reference = f"{name}:{result.version}"
    write_published(store, name, Published(fingerprint=fingerprint, dataset_hash=dataset_hash, model=reference), state)
    log.info("publish: %s", decision.reason)
    return result


def _checked(workspace: Workspace, model_uri: str, evaluation_uri: str, dataset_uri: str) -> _Given:
    """Read what is published, and make sure that it belongs together."""
    from boneseg.models.checkpoint import is_stored  # loads torch

    store = workspace.store
    card_key = store.key(model_uri) + CARD_FILE
    remedy = "'boneseg train' makes the model whole again"
    card = ModelCard.read(store.read(card_key), store.uri(card_key), remedy)
    if not is_stored(workspace, PurePosixPath(store.key(model_uri)).name):
        raise ModelError(f"{model_uri} is damaged: its weights are not those of its card; {remedy}")
    evaluation = load_evaluation(workspace, evaluation_uri)
    dataset = load_dataset(workspace, dataset_uri)
    if evaluation.model_hash != card.model_hash:
        raise ModelError(
            f"{evaluation_uri} measures model {evaluation.model_hash}, not {card.model_hash}; "
            f"evaluate {model_uri} first"
        )
    if evaluation.test_hash != dataset.test_hash:
        raise ModelError(
            f"{evaluation_uri} was made on test set {evaluation.test_hash}, but that of dataset "
            f"{dataset.dataset_hash} is {dataset.test_hash}; evaluate {model_uri} again with 'boneseg evaluate'"
        )
    names = {evaluation.evaluation_hash}
    named = evaluation_identity(card.model_hash, dataset.test_hash, evaluation.settings)
    if evaluation.evaluation_hash != named:
        log.info("publish: %s was made by another version; measuring anew", evaluation_uri)
        evaluation = _evaluate(workspace, model_uri, dataset_uri, evaluation)
    strangers = {row.series for row in evaluation.series} - {shard.series for shard in dataset.of(Split.TEST)}
    others = [row.series for row in evaluation.series if row.network.method != card.model_hash]
    if strangers or others:
        what = "series that are not in the test set" if strangers else "measurements of another model"
        raise ModelError(f"{evaluation_uri} holds {what}; remove it with 'boneseg store remove' and evaluate again")
    return _Given(model_uri, card, evaluation, frozenset({*names, evaluation.evaluation_hash}), dataset_uri, dataset)


def _headline(evaluation: EvaluationResult, wanted: str) -> str:
    """Return the class or group by which models are compared, as the evaluation calls it.

    Raises:
        ModelError: it is not measured for this model.
    """
    names = _measured_names(evaluation)
    for name in names:
        if plain(name) == plain(wanted):
            return name
    raise ModelError(f"publish.headline = {wanted!r} is not measured for this model; there are {', '.join(names)}")


def _measured_names(evaluation: EvaluationResult) -> list[str]:
    """Return the classes and groups that an evaluation measures; bone is in every one."""
    regions = (region.name for row in evaluation.series for region in row.network.regions)
    return list(dict.fromkeys([BONE_GROUP, *regions]))


def _publish(
    workspace: Workspace, registry: Registry, given: _Given, settings: RunSettings, headline: str, promote: bool
) -> tuple[PublishResult, Decision]:
    """Register and decide; called again where somebody else published meanwhile."""
    store, name = workspace.store, settings.publish.model_name
    version = _registered(registry, name, given, workspace)
    champion = registry.at_alias(name, CHAMPION)
    is_champion = champion is not None and champion.version == version.version
    rule = {HEADLINE: headline, MIN_GAIN: f"{settings.publish.min_gain:g}"}
    known = version.tags.get(DECIDED, DECIDING) != DECIDING
    decided = known and (is_champion or _decided_by(version, rule) == rule)
    if decided:
        decision = Decision(promoted=version.tags[DECIDED] == PROMOTED, reason=version.tags[REASON])
    else:
        decision = _decision(workspace, registry, version, given, settings, headline)
    to_promote = promote and not is_champion
    if to_promote:
        decision = by_hand(version.reference, decision)
    if to_promote or not decided:
        readme = model_card(given.card, given.evaluation, given.dataset, given.model_uri, name)
        store.write(store.key(given.model_uri) + CARD_README, readme.encode(), content_type="text/markdown")
        registry.confirm()
        _conclude(registry, version, decision, readme, rule)
    champion = registry.at_alias(name, CHAMPION)
    result = PublishResult(
        name=name,
        version=version.version,
        promoted=decision.promoted,
        reason=decision.reason,
        champion=champion.reference if champion else "",
        run_id=version.run_id,
        tracking_uri=registry.address,
    )
    return result, decision


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
    with read_registry(settings.publish, workspace) as registry:
        source = _find(registry, ref).source
    return fetch_model(workspace, source)


def _find(registry: Registry | None, ref: str) -> Version:
    name, at, alias = ref.partition("@")
    number = ""
    if not at:
        name, _, number = ref.partition(":")
        alias = "" if number else CHAMPION
    names = registry.names() if registry is not None else ()
    if registry is None or name not in names:
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


def _registered(registry: Registry, name: str, given: _Given, workspace: Workspace) -> Version:
    """Return the version of this model with this evaluation, made if it is not there."""
    card, evaluation, dataset = given.card, given.evaluation, given.dataset
    for version in registry.versions(name):
        same_model = version.source.rstrip("/") == given.model_uri.rstrip("/")
        if same_model and (
            version.tags.get(EVALUATION_HASH) in given.names or _measured_alike(workspace, version, evaluation)
        ):
            return version
    lineage = {
        "model_hash": card.model_hash,
        "model_uri": given.model_uri,
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
    return registry.create_version(name, given.model_uri, run_id, lineage)


def _measured_alike(workspace: Workspace, version: Version, evaluation: EvaluationResult) -> bool:
    """Say whether a version was measured on this test set with these settings, by whatever version of boneseg."""
    if version.tags.get("test_hash") != evaluation.test_hash:
        return False
    try:
        earlier = load_evaluation(workspace, version.tags.get(EVALUATION_URI, ""))
    except (RecordError, StoreError):
        return False
    named = evaluation_identity(evaluation.model_hash, evaluation.test_hash, earlier.settings)
    return named == evaluation.evaluation_hash


def _decision(
    workspace: Workspace, registry: Registry, version: Version, given: _Given, settings: RunSettings, headline: str
) -> Decision:
    """Compare a version with the champion, measured anew where its evaluation is of another test set or version."""
    champion = registry.at_alias(version.name, CHAMPION)
    candidate = _score(version.reference, given.evaluation, headline)
    gain = settings.publish.min_gain
    if champion is None:
        return decide(candidate, None, gain)
    if champion.version == version.version and REASON in version.tags:  # stopped between the alias and the last tag
        return Decision(promoted=True, reason=version.tags[REASON])
    if not champion.source.startswith(workspace.store.uri("")):
        raise ModelError(
            f"{champion.reference}, the champion, is {champion.source}, outside bucket {workspace.store.bucket}; set "
            "publish.model_name to a name that belongs to this bucket alone"
        )
    measured = _champions(workspace, champion, given)
    if measured is None:
        return decide(candidate, None, gain, lost=champion.reference)
    return decide(candidate, _score(champion.reference, measured, headline), gain)


def _champions(workspace: Workspace, champion: Version, given: _Given) -> EvaluationResult | None:
    """Return the champion's evaluation with the code, settings and test set of the new model's; none = it is lost."""
    from boneseg.models.checkpoint import is_stored  # loads torch

    model_hash = champion.source.rstrip("/").rpartition("/")[2]
    if not workspace.store.exists(layout.model(model_hash, CARD_FILE)) and not _healed(workspace, champion, model_hash):
        return None
    wanted = evaluation_identity(model_hash, given.evaluation.test_hash, given.evaluation.settings)
    if champion.tags.get(EVALUATION_HASH) == wanted:
        try:
            found = load_evaluation(workspace, champion.tags[EVALUATION_URI])
            if found.evaluation_hash == wanted:
                return found
        except (RecordError, StoreError) as error:
            log.warning("%s", error)
    if not is_stored(workspace, model_hash) and not _healed(workspace, champion, model_hash):
        return None
    log.info("publish: measuring the champion %s as the new model was measured", champion.reference)
    return _evaluate(workspace, champion.source, given.dataset_uri, given.evaluation)


def _healed(workspace: Workspace, champion: Version, model_hash: str) -> bool:
    """Upload a damaged champion again where this machine has it whole, and say whether it has."""
    from boneseg.models.checkpoint import find_local, upload_model  # loads torch

    local = find_local(workspace, model_hash)
    if local is None:
        return False
    log.warning("%s was gone or damaged in the bucket; it is uploaded again from %s", champion.reference, local)
    upload_model(workspace, local)
    return True


def _evaluate(workspace: Workspace, model_uri: str, dataset_uri: str, like: EvaluationResult) -> EvaluationResult:
    from boneseg.evaluate.evaluate import evaluate  # loads torch: seconds that most calls need not wait

    return evaluate(workspace, model_uri, dataset_uri, like.settings)


def _decided_by(version: Version, rule: dict[str, str]) -> dict[str, str]:
    """Return the rule that a version was decided by."""
    return {HEADLINE: version.tags.get(HEADLINE, BONE_GROUP), MIN_GAIN: version.tags.get(MIN_GAIN, rule[MIN_GAIN])}


def _conclude(registry: Registry, version: Version, decision: Decision, readme: str, rule: dict[str, str]) -> None:
    if DECIDED in version.tags:  # by another rule
        registry.tag(version, DECIDED, DECIDING)
    registry.describe(version, f"{decision.reason}\n\n{readme}")
    for name, value in {**rule, REASON: decision.reason}.items():
        registry.tag(version, name, value)
    registry.set_alias(version, CHALLENGER)
    if decision.promoted:
        registry.set_alias(version, CHAMPION)
    registry.tag(version, DECIDED, PROMOTED if decision.promoted else "not promoted")


def _score(reference: str, evaluation: EvaluationResult, headline: str) -> Score:
    return Score(
        reference=reference,
        model_hash=evaluation.model_hash,
        test_hash=evaluation.test_hash,
        by_series=evaluation.dice_by_series(headline),
        patients=evaluation.patients(),
        headline=headline,
        told=headline in _measured_names(evaluation),
    )


def _params(card: ModelCard) -> dict[str, str]:
    settings = {"model": card.model.model_dump(mode="json"), "train": card.train.model_dump(mode="json")}
    return {path: str(value) for path, value in flattened(settings).items()}


def _metrics(card: ModelCard, evaluation: EvaluationResult) -> list[MetricPoint]:
    points = [MetricPoint(key=f"test_{key}", value=value) for key, value in evaluation.scalars().items()]
    for epoch in card.history:
        for key, value in epoch.model_dump(exclude={"epoch"}).items():
            if value is None or isinstance(value, str):
                continue
            parts = {"": value} if not isinstance(value, tuple) else dict(zip(card.classes, value, strict=True))
            for label, part in parts.items():
                metric = f"{key}_{label}".rstrip("_").replace(" ", "_")
                points.append(MetricPoint(key=metric, value=part, step=epoch.epoch))
    return points
