"""Measurements of masks that are given, and a training history: no network takes part."""

from collections.abc import Sequence

import numpy as np

from boneseg.evaluate.files import Study, summarise_study
from boneseg.evaluate.measure import Volume, measure
from boneseg.evaluate.records import EvaluationResult, Measurement, SeriesResult, SplitSummary
from boneseg.geometry import Geometry, axial
from boneseg.identity import stable_hash
from boneseg.inference import Labels
from boneseg.models.card import EpochRecord, ModelCard
from boneseg.scheme import BONE_SCHEME, LabelScheme
from boneseg.settings.schema import EvaluateSettings, ModelSettings, TrainSettings


def history(epochs: int = 3) -> tuple[EpochRecord, ...]:
    """Return a plausible training history."""
    return tuple(
        EpochRecord(
            epoch=epoch,
            train_loss=1 / epoch,
            train_accuracy=0.9 + 0.02 * epoch,
            validation_loss=1 / epoch,
            validation_accuracy=0.9 + 0.025 * epoch,
            validation_iou=(0.9, 0.8, 0.1 * epoch),
            validation_dice=(0.95, 0.9, 0.15 * epoch),
            validation_mean_iou=0.6 + 0.03 * epoch,
            validation_mean_dice=0.7 + 0.03 * epoch,
            seconds=1.0,
        )
        for epoch in range(1, epochs + 1)
    )


def model_card() -> ModelCard:
    """Return the card of no particular model."""
    return ModelCard(
        model_hash="a" * 16,
        model=ModelSettings(),
        train=TrainSettings(),
        dataset_hash="d" * 16,
        fingerprint="f" * 16,
        run="test-run",
        best_epoch=2,
        history=history(),
        parameters=1234567,
        versions={"boneseg": "0"},
    )


class Given:
    """A method whose masks are given."""

    identity = "given"

    def __init__(self, mask: np.ndarray, output: np.ndarray | None = None) -> None:
        self.mask = mask
        self.output = output

    @property
    def scheme(self) -> LabelScheme:
        return BONE_SCHEME

    def segment(self, hu: np.ndarray, geometry: Geometry, slices: Sequence[int] | None = None) -> Labels:
        """Return the given mask."""
        return Labels(self.mask if slices is None else self.mask[list(slices)], self.output)


def measurement(
    reference: np.ndarray, prediction: np.ndarray, settings: EvaluateSettings, output: np.ndarray | None = None
) -> Measurement:
    """Measure a prediction that is given."""
    volume = Volume(np.zeros(reference.shape, np.int16), reference, axial(reference.shape, (2.0, 1.0, 1.0)))
    return measure(Given(prediction, output), "content", volume, settings)


def series_result(
    name: str,
    patient: str,
    reference: np.ndarray,
    network: np.ndarray,
    threshold: np.ndarray,
    settings: EvaluateSettings,
    output: np.ndarray | None = None,
) -> SeriesResult:
    """Measure a series under two predictions that are given; ``output`` is the network's on its own grid."""
    return SeriesResult(
        series=stable_hash(name),
        content=stable_hash([name]),
        patient=stable_hash([patient, "patient"]),
        network=measurement(reference, network, settings, output),
        threshold=measurement(reference, threshold, settings),
    )


def evaluation(series: Sequence[SeriesResult], settings: EvaluateSettings) -> EvaluationResult:
    """Evaluate series that are given; where it was, and on which data, is made up."""
    patients = len({row.patient for row in series})
    images = sum(row.images for row in series)
    return summarise_study(
        Study(
            evaluation_hash="e" * 16,
            place="s3://bucket/evaluations/x",
            card=model_card(),
            test_hash="t" * 16,
            dataset_hash="d" * 16,
            settings=settings,
            data=(SplitSummary(split="test", series=len(series), patients=patients, slices=images),),
            series=tuple(series),
            problems=(),
        )
    )
