"""Weights that an encoder learned on ImageNet: where they are found, how they are checked, how they fit other images.

A mirror, a folder or the bucket's ``weights/``, holds ``<encoder>/model.safetensors``, the file as it was published,
beside ``<encoder>/weights.json``: its hash, where it is from and how its pictures were normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from boneseg.atomic_write import atomic_write_bytes
from boneseg.errors import ModelError, RecordError, StoreError
from boneseg.models import first_layer, hub_weights, paper
from boneseg.models.build import AnySize
from boneseg.settings.schema import ModelSettings
from boneseg.storage import layout
from boneseg.storage.hashing import sha256_file
from boneseg.storage.records import Record
from boneseg.storage.workspace import Workspace

WEIGHTS_FILE, NOTE_FILE = hub_weights.FILE, "weights.json"
_MIRROR = "'boneseg weights mirror'"


class WeightsNote(Record):
    """What stands beside pretrained weights."""

    sha256: str
    """Of ``model.safetensors``."""
    source: str
    """Where it was published."""
    mean: tuple[float, float, float]
    """Of red, green and blue, for pictures of 0 to 1: the encoder learned on (picture - mean) / std."""
    std: tuple[float, float, float]


def pretrained(workspace: Workspace, model: ModelSettings, mirror: str | None) -> Path | None:
    """Find the weights a network is to start from, fetch them to this machine and check them.

    Looked for in the mirror folder, then in the bucket, then on the internet; a copy from the latter two stays in the
    workspace's folder.

    Args:
        workspace: whose bucket may hold ``weights/<encoder>/``.
        model: the network; ``weights`` says whether it starts from any.
        mirror: folder that holds ``<encoder>/``; none = there is none.

    Returns:
        The local ``model.safetensors``; none where the network starts from random numbers.

    Raises:
        ModelError: the weights are nowhere, do not exist for this encoder, or are not the file that was published.
        StoreError: the bucket does not answer.
    """
    if model.weights == "none":
        return None
    if mirror is not None:
        folder = Path(mirror) / model.encoder
        if (folder / WEIGHTS_FILE).exists():
            return _checked(folder)
    folder = _local(workspace, model.encoder)
    if _fetch(workspace, model.encoder, folder):
        return _checked(folder)
    if not _whole(folder):
        try:
            _download(model.encoder, folder)
        except hub_weights.AbsentError as error:
            tried = [str(Path(mirror) / model.encoder / WEIGHTS_FILE)] if mirror is not None else []
            tried.append(workspace.store.uri(layout.weights(model.encoder, WEIGHTS_FILE)))
            raise ModelError(
                f"no ImageNet weights of encoder {model.encoder} at {' or '.join(tried)}, and {error}; put them there "
                f"with 'boneseg weights mirror --encoder {model.encoder}' from a machine with internet, or set "
                "model.weights to none"
            ) from error
    return _checked(folder)


def load_pretrained(network: AnySize, model: ModelSettings, file: Path) -> None:
    """Put pretrained weights into a network's encoder, in place; the decoder stays as it is.

    The encoder learned on normalised pictures of three colours. Here it sees slices of 0 to 1, so its first
    convolution is changed to do the rest. With kernel W_c of colour c, mean m_c and standard deviation s_c:

    - channel i of n takes the kernel of colour c = i mod 3, as in ``segmentation_models_pytorch`` and ``timm``, but
      divided by the number of channels that share the colour instead of multiplied by 3 / n; one channel takes the sum
      of all colours. So n equal slices give what a grey picture gave, for every n.
    - normalisation is part of the kernel: W_c (x - m_c) / s_c = (W_c / s_c) x - W_c m_c / s_c. The first term scales
      the kernel, the second, summed over the kernel, is taken from the convolution's bias or, where it has none, added
      to the running mean of the batch normalisation behind it. Only where an image is padded with zeros at its border
      does the answer differ from that to a normalised picture.

    Args:
        network: as ``build_model`` made it.
        model: settings it was built from.
        file: as ``pretrained`` found it, ``weights.json`` beside it.

    Raises:
        ModelError: the file holds another encoder's weights.
    """
    note = _read_note(file.parent)
    encoder = network.network.get_submodule("encoder")
    try:
        given = hub_weights.read(encoder, model.encoder, file)
        first_layer.fit(encoder, model.encoder, given, note.mean, note.std)
        encoder.load_state_dict(_matched(encoder, given))
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:")
        raise ModelError(
            f"{file} does not fit encoder {model.encoder} ({first_line}); delete its folder and make it again with "
            f"{_MIRROR}"
        ) from error


def _matched(encoder: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under an encoder's own names.

    The paper's encoders are published ones without their last stages; its ResNet50 has biases where the published one
    has none, and starts with them at 0.
    """
    own = encoder.state_dict()
    if not isinstance(encoder, paper.Encoder):
        return given
    biases = {name: torch.zeros_like(value) for name, value in own.items() if name.endswith(".bias")}
    return {name: value for name, value in {**biases, **given}.items() if name in own}


def mirror_weights(names: Sequence[str], place: Workspace | Path) -> list[str]:
    """Fetch encoders' weights from the internet into a mirror; what is there is left as it is.

    Args:
        names: of the encoders.
        place: a folder, or the workspace whose bucket is the mirror.

    Returns:
        Where each encoder's weights are now.

    Raises:
        ModelError: there are no weights for an encoder, or the internet cannot be reached.
        StoreError: the bucket does not answer.
    """
    for name in names:
        hub_weights.place(name)
    places = []
    for name in names:
        folder = place / name if isinstance(place, Path) else _local(place, name)
        if isinstance(place, Workspace) and place.store.exists(layout.weights(name, NOTE_FILE)):
            places.append(place.store.uri(layout.weights(name)))
            continue
        if not _whole(folder):
            try:
                _download(name, folder)
            except hub_weights.AbsentError as error:
                raise ModelError(
                    f"weights of encoder {name}: {error}; run 'boneseg weights mirror --encoder {name} --out FOLDER' "
                    "where there is internet, carry the folder here and give it to --from"
                ) from error
        places.append(_upload(place, name, folder) if isinstance(place, Workspace) else str(folder))
    return places


def upload_mirror(workspace: Workspace, mirror: Path, names: Sequence[str] = ()) -> list[str]:
    """Put a mirror that was carried here as a folder into the bucket.

    Args:
        workspace: whose bucket it goes to.
        mirror: folder that holds ``<encoder>/``.
        names: of the encoders; none = all that the folder holds.

    Returns:
        URI of each encoder's weights.

    Raises:
        ModelError: the folder lacks an encoder, or a file is damaged.
        StoreError: the bucket does not answer.
    """
    found = sorted(note.parent.name for note in mirror.glob(f"*/{NOTE_FILE}"))
    if not found:
        raise ModelError(f"{mirror} is no mirror: it holds no <encoder>/{NOTE_FILE}; make one with {_MIRROR} --out")
    missing = [name for name in names if name not in found]
    if missing:
        raise ModelError(f"{mirror} has no weights of {missing[0]}; it has {', '.join(found)}")
    places = []
    for name in names or found:
        _checked(mirror / name)
        places.append(_upload(workspace, name, mirror / name))
    return places


def _local(workspace: Workspace, encoder: str) -> Path:
    return workspace.folder / "weights" / encoder


def _read_note(folder: Path) -> WeightsNote:
    try:
        remedy = f"delete the folder and make it again with {_MIRROR}"
        return WeightsNote.read((folder / NOTE_FILE).read_bytes(), str(folder / NOTE_FILE), remedy)
    except RecordError as error:
        raise ModelError(str(error)) from error
    except OSError as error:
        raise ModelError(
            f"{folder / NOTE_FILE}, which holds the hash of the weights beside it, is missing or not readable; "
            f"delete the folder and make it again with {_MIRROR}"
        ) from error


def _checked(folder: Path) -> Path:
    """Return the weights in a folder if they are those that its note speaks of."""
    note = _read_note(folder)
    file = folder / WEIGHTS_FILE
    if not file.exists() or sha256_file(file) != note.sha256:
        raise ModelError(
            f"{file}: not the file that {NOTE_FILE} beside it speaks of (cut short or changed); delete the folder "
            f"and make it again with {_MIRROR}"
        )
    return file


def _whole(folder: Path) -> bool:
    try:
        _checked(folder)
    except ModelError:
        return False
    return True


def _fetch(workspace: Workspace, encoder: str, folder: Path) -> bool:
    """Copy weights from the bucket, unless the same are here; false where the bucket has none."""
    note = workspace.store.read_if_there(layout.weights(encoder, NOTE_FILE))
    if note is None:
        return False
    if not (_whole(folder) and (folder / NOTE_FILE).read_bytes() == note):
        try:
            workspace.store.download(layout.weights(encoder, WEIGHTS_FILE), folder / WEIGHTS_FILE)
        except StoreError as error:
            raise ModelError(f"{error}, though its {NOTE_FILE} is; make it again with {_MIRROR}") from error
        atomic_write_bytes(folder / NOTE_FILE, note)
    return True


def _upload(workspace: Workspace, encoder: str, folder: Path) -> str:
    workspace.store.upload(folder / WEIGHTS_FILE, layout.weights(encoder, WEIGHTS_FILE))
    workspace.store.upload(folder / NOTE_FILE, layout.weights(encoder, NOTE_FILE), content_type="application/json")
    return workspace.store.uri(layout.weights(encoder))


def _download(encoder: str, folder: Path) -> None:
    file = folder / WEIGHTS_FILE
    source, mean, std = hub_weights.download(encoder, file)
    note = WeightsNote.model_validate({"sha256": sha256_file(file), "source": source, "mean": mean, "std": std})
    atomic_write_bytes(folder / NOTE_FILE, note.to_json())
