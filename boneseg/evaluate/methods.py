"""What is measured: every method by its name, how it is made, what it needs and which classes it can tell apart.

Another baseline is a row of ``METHODS``: measurements, tables, figures and report go through the rows. A row that is in
every evaluation changes what an evaluation holds: raise ``records.EVALUATE_VERSION``. One that is there only where it
is asked for, as the ensemble is, belongs to the identity of those evaluations instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from boneseg.errors import ModelError
from boneseg.evaluate.classical import CLASSICAL_VERSION, threshold_segmentation
from boneseg.evaluate.names import ENSEMBLE, NETWORK, THRESHOLD
from boneseg.geometry import Geometry
from boneseg.identity import stable_hash
from boneseg.inference import Labels, predict_both, predict_ensemble
from boneseg.models.card import ModelCard
from boneseg.scheme import BONE_SCHEME, LabelScheme
from boneseg.settings.schema import EvaluateSettings


class Method(Protocol):
    """Anything that labels the voxels of a CT series."""

    @property
    def identity(self) -> str:
        """Hash of all that decides the mask."""

    @property
    def scheme(self) -> LabelScheme:
        """What the values of the mask mean: the classes that it can tell apart."""

    def segment(self, hu: NDArray[np.int16], geometry: Geometry, slices: Sequence[int] | None = None) -> Labels:
        """Label every voxel of a volume in axial order, or of some slices."""


@dataclass(frozen=True)
class NetworkMethod:
    """A trained network: it tells the classes of its card's scheme."""

    network: nn.Module
    card: ModelCard
    batch_size: int

    @property
    def identity(self) -> str:
        """Hash of the model."""
        return self.card.model_hash

    @property
    def scheme(self) -> LabelScheme:
        """The model's."""
        return self.card.scheme

    def segment(self, hu: NDArray[np.int16], geometry: Geometry, slices: Sequence[int] | None = None) -> Labels:
        """Label every voxel of a volume in axial order, or of some slices, on both grids."""
        preprocess = self.card.model.preprocess
        return predict_both(self.network, preprocess, hu, geometry, self.batch_size, "auto", slices)


@dataclass(frozen=True)
class EnsembleMethod:
    """Several trained networks together: the mean of their class probabilities on the series' own grid."""

    members: tuple[NetworkMethod, ...]

    def __post_init__(self) -> None:
        first, *others = self.members
        for other in others:
            if other.scheme.identity != first.scheme.identity:
                raise ModelError(
                    f"models {first.identity} and {other.identity} tell different classes apart ({first.scheme.name}, "
                    f"{other.scheme.name}); an ensemble needs models of one scheme"
                )

    @property
    def identity(self) -> str:
        """Hash of the models, whatever their order."""
        return stable_hash(["mean of probabilities", *sorted(member.identity for member in self.members)])

    @property
    def scheme(self) -> LabelScheme:
        """The members'."""
        return self.members[0].scheme

    def segment(self, hu: NDArray[np.int16], geometry: Geometry, slices: Sequence[int] | None = None) -> Labels:
        """Label every voxel of a volume in axial order, or of some slices; it has no grid but the series' own."""
        networks = [(member.network, member.card.model.preprocess) for member in self.members]
        return Labels(predict_ensemble(networks, hu, geometry, self.members[0].batch_size, "auto", slices), None)


@dataclass(frozen=True)
class ThresholdMethod:
    """The classical method: it tells background, outline and bone."""

    threshold_hu: float

    @property
    def identity(self) -> str:
        """Hash of the threshold and of the version of the morphology."""
        return stable_hash(["threshold", self.threshold_hu, CLASSICAL_VERSION])

    @property
    def scheme(self) -> LabelScheme:
        """It knows bone alone."""
        return BONE_SCHEME

    def segment(self, hu: NDArray[np.int16], geometry: Geometry, slices: Sequence[int] | None = None) -> Labels:
        """Label a whole volume in axial order: couch and small parts are told by their size in 3D."""
        mask = threshold_segmentation(hu, geometry, self.threshold_hu)
        return Labels(mask if slices is None else mask[list(slices)], None)


@dataclass(frozen=True)
class Ingredients:
    """What a method may be made of."""

    network: nn.Module
    card: ModelCard
    settings: EvaluateSettings
    ensemble: tuple[tuple[nn.Module, ModelCard], ...] = ()
    """Networks that are measured together; none = no ensemble is asked for."""


@dataclass(frozen=True)
class MethodKind:
    """A row of the table of methods."""

    build: Callable[[Ingredients], Method]
    needs: str
    """What it is made of, for a person."""
    tells: Callable[[LabelScheme], LabelScheme]
    """The classes that it can tell apart, given the model's; it is measured where they and the label's meet."""
    wanted: Callable[[Ingredients], bool] = lambda _: True
    """Whether it takes part."""


METHODS: dict[str, MethodKind] = {
    NETWORK: MethodKind(
        lambda given: NetworkMethod(given.network, given.card, given.settings.batch_size),
        needs="a trained model",
        tells=lambda scheme: scheme,
    ),
    THRESHOLD: MethodKind(
        lambda given: ThresholdMethod(given.settings.threshold_hu),
        needs="nothing but evaluate.threshold_hu",
        tells=lambda _: BONE_SCHEME,
    ),
    ENSEMBLE: MethodKind(
        lambda given: EnsembleMethod(
            tuple(NetworkMethod(network, card, given.settings.batch_size) for network, card in given.ensemble)
        ),
        needs="trained models of one label scheme, by --ensemble",
        tells=lambda scheme: scheme,
        wanted=lambda given: bool(given.ensemble),
    ),
}
"""Name -> how it is made. The first is the one that the others stand beside; the first two are in every evaluation."""


def build_methods(given: Ingredients) -> dict[str, Method]:
    """Make every method of the table that takes part, in its order."""
    return {name: kind.build(given) for name, kind in METHODS.items() if kind.wanted(given)}
