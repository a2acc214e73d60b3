"""A body of many small bones and a prediction with known faults: no network takes part."""

import numpy as np
from scipy import ndimage

from boneseg.evaluate.measure import Subject, Volume, measure
from boneseg.evaluate.records import SeriesResult
from boneseg.geometry import axial
from boneseg.identity import stable_hash
from boneseg.inference import Labels
from boneseg.scheme import BONE_SCHEME, Labelling, LabelScheme
from boneseg.settings.schema import EvaluateSettings

SPACING = (2.0, 1.0, 1.0)


class GivenBones:
    """A method whose mask is given, in any scheme."""

    def __init__(self, mask: np.ndarray, scheme: LabelScheme, output: np.ndarray | None = None) -> None:
        self.mask, self.scheme, self.output = mask, scheme, output
        self.identity = stable_hash([scheme.identity, mask.tobytes().hex()[:64], int(mask.sum())])

    def segment(self, hu: np.ndarray, geometry: object, slices: list[int] | None = None) -> Labels:
        """Return the given mask."""
        return Labels(self.mask if slices is None else self.mask[list(slices)], self.output)


def body(scheme: LabelScheme, seed: int = 0, shape: tuple[int, int, int] = (40, 96, 110)) -> np.ndarray:
    """Return a label in which every bone is an ellipsoid of its own; partners lie on two sides."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).astype(float)
    middle = np.array(shape) / 2
    label = (((grid - middle)[..., 1:] / (middle[1:] - 4)) ** 2).sum(axis=-1) < 1
    label = label.astype(np.uint8) * np.uint8(scheme.body or 0)
    across = int(np.ceil(np.sqrt(len(scheme.bones))))
    for place, value in enumerate(scheme.bones):
        row, depth = divmod(place, across)
        side = {"left": 1.0, "right": -1.0}.get(scheme.classes[value].side or "", 0.0)
        at = np.array([4 + depth * (shape[0] - 8) / across, 18 + row * (shape[1] - 36) / across, 0.0])
        at[2] = middle[2] + side * rng.uniform(14, 28) + rng.uniform(-2, 2)
        label[((((grid - at) / rng.uniform(2.5, 4.5, 3)) ** 2).sum(axis=-1) < 1)] = value
    return label


def guess(label: np.ndarray, scheme: LabelScheme, seed: int = 0, swapped: int = 0) -> np.ndarray:
    """Return a prediction: edges moved at random, and the first slices of some left bones given to their partners."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=label.shape), 2)
    mask = np.where(noise > 0.05, np.roll(label, 1, axis=1), label).astype(np.uint8)
    lefts = [value for value in scheme.bones if scheme.classes[value].side == "left"]
    for value in lefts[:swapped]:
        slices = np.unique(np.nonzero(mask == value)[0])[:2]
        part = mask[slices]
        part[part == value] = scheme.mirrored[value]
        mask[slices] = part
    return mask


def picture(label: np.ndarray, scheme: LabelScheme, seed: int = 0) -> np.ndarray:
    """Return HU to a label."""
    roles = scheme.role_table[label].astype(int)
    return (np.array([-1000, 40, 500])[roles] + np.random.default_rng(seed).normal(0, 25, label.shape)).astype(np.int16)


def result_of(
    name: str,
    reference: np.ndarray,
    network: GivenBones,
    settings: EvaluateSettings,
    labelling: Labelling,
) -> SeriesResult:
    """Measure a series under a prediction in any scheme, and under the three common classes of the reference."""
    hu = np.zeros(reference.shape, np.int16)
    volume = Volume(hu, reference, axial(reference.shape, SPACING), labelling)
    common = GivenBones(np.minimum(labelling.roles[reference], 2), BONE_SCHEME)
    return SeriesResult(
        series=stable_hash(name),
        content=stable_hash([name]),
        patient=stable_hash([name, "patient"]),
        network=measure(network, "content", volume, settings),
        threshold=measure(common, "content", volume, settings),
    )


def subject_of(result: SeriesResult, hu: np.ndarray, label: np.ndarray, labelling: Labelling) -> Subject:
    """Return a series to draw pictures of."""
    volume = Volume(hu, label, axial(label.shape, SPACING), labelling)
    return Subject(result.series, result.content, "raw/s", result.patient, lambda: volume)
