"""Trained models on disk and in the bucket: weights as safetensors and a card, checked by hash when loaded."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from boneseg.atomic_write import atomic_write, atomic_write_bytes
from boneseg.errors import ModelError, RecordError
from boneseg.models.build import AnySize, build_model, count_parameters
from boneseg.models.card import CARD_FILE, WEIGHTS_FILE, Continuation, EpochRecord, ModelCard
from boneseg.scheme import BONE_SCHEME, LabelScheme
from boneseg.settings import identities
from boneseg.settings.schema import ModelSettings, TrainSettings
from boneseg.storage import layout
from boneseg.storage.catalogue import ObjectRef
from boneseg.storage.faults import ObjectMissingError
from boneseg.storage.hashing import combine, sha256_file
from boneseg.storage.integrity import is_intact, is_same, written
from boneseg.storage.scratch import scratch_folder
from boneseg.storage.workspace import Workspace

_FILES = (WEIGHTS_FILE, CARD_FILE)


def save_model(
    folder: Path,
    network: nn.Module,
    *,
    model: ModelSettings,
    train: TrainSettings,
    dataset_hash: str,
    fingerprint: str,
    run: str,
    best_epoch: int,
    history: tuple[EpochRecord, ...],
    computed: str = "",
    continued: tuple[Continuation, ...] = (),
    scheme: LabelScheme = BONE_SCHEME,
) -> ModelCard:
    """Write a model's folder, the card last: a folder without a card is not a model.

    Args:
        folder: where ``model.safetensors`` and ``card.json`` go; what is there is replaced.
        network: as ``build_model`` made it.
        model: settings it was built from.
        train: settings it was trained with.
        dataset_hash: of the data it was trained on.
        fingerprint: of the catalogue behind that data.
        run: name of the training run.
        best_epoch: epoch whose weights these are.
        history: what every epoch measured.
        computed: where and in which number format.
        continued: when epochs were added.
        scheme: what the values of its masks mean.

    Raises:
        ModelError: the disk is full or the folder cannot be written.
    """
    # Safetensors takes plain memory order only, and refuses two names for one tensor.
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CARD_FILE).unlink(missing_ok=True)
        with atomic_write(folder / WEIGHTS_FILE, sole_writer=True) as partial:
            safetensors.torch.save_file(weights, partial)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder}: cannot write the model ({error}); free some space there") from error
    card = ModelCard(
        model_hash=_model_hash(folder, model, scheme),
        scheme=scheme,
        model=model,
        train=train,
        dataset_hash=dataset_hash,
        fingerprint=fingerprint,
        run=run,
        best_epoch=best_epoch,
        history=history,
        computed=computed,
        continued=continued,
        parameters=count_parameters(network).trainable,
        versions=_versions(),
    )
    atomic_write_bytes(folder / CARD_FILE, card.to_json())
    return card


def load_model(folder: Path, device: str = "cpu") -> tuple[AnySize, ModelCard]:
    """Read a model's folder.

    Returns:
        The network, ready for prediction, and its card.

    Raises:
        ModelError: the folder is not a model, or its files are not the ones that were saved.
    """
    card = read_card(folder)
    network = build_model(card.model, card.scheme.size)
    try:
        network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE, device="cpu"))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise ModelError(
            f"{folder}: the weights do not fit {card.model.architecture} on {card.model.encoder} as built here "
            f"(saved with {card.versions}); fetch the model again or train a new one"
        ) from error
    return network.to(torch.device(device)).eval(), card


def read_card(folder: Path) -> ModelCard:
    """Read a model's card and check that card and weights belong together.

    Raises:
        ModelError: the folder is not a model, or its files are not the ones that were saved.
    """
    try:
        card = ModelCard.read(
            (folder / CARD_FILE).read_bytes(), str(folder / CARD_FILE), "fetch the model again or train it anew"
        )
        found = _model_hash(folder, card.model, card.scheme)
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise ModelError(f"{folder} is not a model: {missing} is missing; give a folder that train wrote") from error
    except OSError as error:
        raise ModelError(f"{folder}: cannot read the model ({error.strerror})") from error
    except RecordError as error:
        raise ModelError(str(error)) from error
    if found != card.model_hash:
        raise ModelError(
            f"{folder}: weights and card do not match (cut short or changed after saving); fetch the model again"
        )
    return card


def upload_model(workspace: Workspace, folder: Path) -> str:
    """Copy a model to the bucket, the card last; a damaged copy that is there is replaced.

    Returns:
        Its URI, ``s3://bucket/models/<hash>/``.
    """
    card, store = read_card(folder), workspace.store
    for file, kind in ((WEIGHTS_FILE, "application/octet-stream"), (CARD_FILE, "application/json")):
        key = layout.model(card.model_hash, file)
        if not is_same(store, key, folder / file):
            store.upload(folder / file, key, kind)
    return store.uri(layout.model(card.model_hash))


def stored_files(workspace: Workspace, folder: Path) -> tuple[ObjectRef, ...]:
    """Return what tells later whether the bucket still holds this model as it was uploaded from here."""
    model_hash = read_card(folder).model_hash
    return tuple(written(workspace.store, layout.model(model_hash, file), folder / file) for file in _FILES)


def is_stored(workspace: Workspace, model_hash: str, files: tuple[ObjectRef, ...] = ()) -> bool:
    """Say whether the bucket holds a model whole.

    Args:
        workspace: bucket and local folder.
        model_hash: of the model.
        files: as ``stored_files`` gave them; none = nobody noted them, so that the model is read.
    """
    if files:
        return all(is_intact(workspace.store, ref, workspace.folder) for ref in files)
    with scratch_folder(workspace.folder, "model-") as folder:
        try:
            _download(workspace, layout.model(model_hash).rstrip("/"), folder)
            return read_card(folder).model_hash == model_hash
        except (ModelError, ObjectMissingError):
            return False


def find_local(workspace: Workspace, model_hash: str, run: str | None = None) -> Path | None:
    """Return a folder of this machine that holds a model whole, where there is one."""
    places = [workspace.folder / "models" / model_hash]
    if run is not None:
        places.insert(0, workspace.run_folder(run) / "model")
    for folder in places:
        with suppress(ModelError):
            if read_card(folder).model_hash == model_hash:
                return folder
    return None


def fetch_model(workspace: Workspace, uri: str) -> Path:
    """Copy a model from the bucket to this machine, unless a whole copy is here.

    Returns:
        The local folder.

    Raises:
        StoreError: the bucket has no such model.
        ModelError: what the bucket holds is damaged.
    """
    prefix = workspace.store.key(uri).rstrip("/")
    folder = workspace.folder / "models" / prefix.rpartition("/")[2]
    named = folder.name
    try:
        if read_card(folder).model_hash == named:
            return folder
    except ModelError:
        pass
    _download(workspace, prefix, folder)
    found = read_card(folder).model_hash
    if found != named:
        raise ModelError(
            f"{workspace.store.uri(prefix)} holds model {found}, not {named}; 'boneseg train' makes it whole again"
        )
    return folder


def _download(workspace: Workspace, prefix: str, folder: Path) -> None:
    for file in _FILES:
        workspace.store.download(f"{prefix}/{file}", folder / file)


def _model_hash(folder: Path, model: ModelSettings, scheme: LabelScheme) -> str:
    used = identities.MODEL.hash(model.model_dump(mode="json"))
    return combine([sha256_file(folder / WEIGHTS_FILE), used, *scheme.naming])


def _versions() -> dict[str, str]:
    packages = ("boneseg", "torch", "segmentation_models_pytorch")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
