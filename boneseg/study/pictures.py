"""The slices of Figures 6 and 7: one under every network, three under the best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boneseg.evaluate.measure import Subject
from boneseg.evaluate.measure_series import shard_subject
from boneseg.evaluate.methods import Method, NetworkMethod, ThresholdMethod
from boneseg.evaluate.names import NETWORK, THRESHOLD
from boneseg.evaluate.pictures import Choice, choose, draw, shown_as
from boneseg.evaluate.plots_slices import SlicePicture, iou_text
from boneseg.evaluate.plots_study import Panel
from boneseg.evaluate.records import SeriesResult
from boneseg.evaluate.tables import image_bone_iou, pooled_output
from boneseg.metrics import counts
from boneseg.models.checkpoint import fetch_model, load_model
from boneseg.scheme import Labelling
from boneseg.scheme.labelling import take
from boneseg.settings.schema import Split
from boneseg.study.trial import Finished, Shared


@dataclass(frozen=True)
class Pictures:
    """What Figures 6 and 7 show."""

    slice: SlicePicture
    networks: tuple[Panel, ...]
    """CT, reference, every network and the threshold on this slice."""
    examples: tuple[SlicePicture, ...]
    """Best, typical and worst slice of the best network."""


def best_of(finished: Sequence[Finished]) -> Finished:
    """Return the network of the highest mean IoU on the test set, ``paper`` protocol; of equals the first."""
    return max(finished, key=mean_iou)


def mean_iou(network: Finished) -> float:
    """Return a network's mean IoU on the test set, 0 to 1, ``paper`` protocol."""
    value = float(counts.mean_over_classes(counts.iou(pooled_output(network.evaluation.series, NETWORK))))
    return value if np.isfinite(value) else 0.0


def make_pictures(finished: Sequence[Finished], shared: Shared) -> Pictures | None:
    """Segment the chosen slices under all networks; none where no test slice holds bone."""
    best = best_of(finished)
    choices = choose(best.evaluation.series)
    if not choices:
        return None
    subjects = [
        shard_subject(shared.workspace, shard, shared.dataset.scheme) for shard in shared.dataset.of(Split.TEST)
    ]
    threshold = ThresholdMethod(best.evaluation.settings.threshold_hu)
    examples = draw(choices, subjects, {NETWORK: _method(best, shared), THRESHOLD: threshold})
    place = next((place for place, choice in enumerate(choices) if choice.title == "typical"), 0)
    return Pictures(
        examples[place], _panels(choices[place], examples[place], finished, subjects, shared), tuple(examples)
    )


def _panels(
    choice: Choice, picture: SlicePicture, finished: Sequence[Finished], subjects: Sequence[Subject], shared: Shared
) -> tuple[Panel, ...]:
    volume = next(subject for subject in subjects if subject.series == choice.row.series).load()
    panels = [Panel("CT", None, picture.place), Panel("reference", picture.reference, "")]
    for network in finished:
        method = _method(network, shared)
        mask = method.segment(volume.hu, volume.geometry, [choice.index]).mask[0]
        mask = take(shown_as(picture.scheme, Labelling(method.scheme)), mask)
        row = next(row for row in network.evaluation.series if row.series == choice.row.series)
        panels.append(Panel(network.trial.title, mask, iou_text(_bone_iou(row, choice.index))))
    classical = picture.methods[THRESHOLD]
    return (*panels, Panel("threshold", classical.mask, iou_text(classical.iou)))


def _bone_iou(row: SeriesResult, index: int) -> float:
    return float(image_bone_iou(row.network)[index])


def _method(network: Finished, shared: Shared) -> Method:
    model, card = load_model(fetch_model(shared.workspace, network.model_uri))
    return NetworkMethod(model, card, network.evaluation.settings.batch_size)
