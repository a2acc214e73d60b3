"""The model card: what a person reads before using a model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from boneseg.dataset.manifest import Dataset
from boneseg.evaluate.class_words import MOST_SHOWN, bone_sentences, parts
from boneseg.evaluate.forms import shortened, to_markdown
from boneseg.evaluate.records import EvaluationResult
from boneseg.evaluate.report import patients_text
from boneseg.models.card import ModelCard
from boneseg.scheme import LabelScheme

CARD_README = "README.md"
"""File beside the model's weights; not part of the model's hash."""


def model_card(card: ModelCard, evaluation: EvaluationResult, dataset: Dataset, model_uri: str, name: str) -> str:
    """Return the model card as Markdown.

    Args:
        card: of the model.
        evaluation: of the model on the dataset's test split.
        dataset: it was measured on.
        model_uri: where weights and card are.
        name: in the registry.
    """
    return (
        "\n\n".join(
            [
                f"# {name}: bone segmentation in CT ({card.model.architecture}, {card.model.encoder})",
                _classes(card.scheme),
                "## Results",
                *_results(evaluation),
                "## Intended use and limits",
                _USE,
                "## Data",
                _data(evaluation, dataset),
                "## Training",
                _training(card),
                "## Use",
                _loading(name, model_uri),
                "## Lineage",
                _lineage(card, evaluation, dataset),
            ]
        )
        + "\n"
    )


def _classes(scheme: LabelScheme) -> str:
    """Say what the values of a mask mean; classes of a group together where they are many."""
    if scheme.size <= MOST_SHOWN:
        listed = ", ".join(f"{value} {name}" for value, name in enumerate(scheme.names))
        return f"Labels every pixel of a CT slice as {listed}."
    lines = [f"Labels every pixel of a CT slice as one of {scheme.size} classes (scheme {scheme.name}):", ""]
    for group, values in parts(scheme).items():
        listed = ", ".join(f"{value} {scheme.names[value]}" for value in values)
        lines.append(f"- {listed}" if len(values) == 1 else f"- {group}: {listed}")
    return "\n".join(lines)


_USE = """\
For research on CT series whose voxels are in HU: measuring bone, planning, and as a start for labelling by hand.
It is not a medical device: a person checks every mask before it counts.

It has seen only the kind of series described below. Other regions of the body, metal, contrast agents, children and
other scanners can fail without a warning. Each slice is labelled by itself, so that neighbouring slices may disagree.
The interval beside a mean is over the patients of the test set, not over those it will meet."""


def _results(evaluation: EvaluationResult) -> list[str]:
    bone = f"Mean bone Dice over {len(evaluation.series)} test series: {_number(evaluation.bone_dice)}"
    if evaluation.bone_dice_interval is not None:
        low, high = evaluation.bone_dice_interval
        bone += f" (95 % interval {_number(low)} to {_number(high)})"
    else:
        bone += f" ({evaluation.no_interval()})"
    bone += f"; a HU threshold reaches {_number(evaluation.threshold_bone_dice)} there."
    tables = [shortened(table) for table in evaluation.tables if table.name in ("class_wise", "bones", "sides")]
    return [
        bone,
        *bone_sentences(evaluation),
        *(to_markdown(table) for table in tables),
        f"All tables and plots: {evaluation.report_uri}",
    ]


def _data(evaluation: EvaluationResult, dataset: Dataset) -> str:
    rows = [(part.split, part.series, part.patients, part.slices) for part in evaluation.data]
    lines = ["| split | series | patients | slices |", "|---|---:|---:|---:|"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    spacings = sorted({entry.shard.geometry.geometry().spacing for entry in dataset.entries})
    if spacings:
        slices, pixels = [spacing[0] for spacing in spacings], [spacing[1] for spacing in spacings]
        lines += ["", f"Slices every {_range(slices)} mm, pixels of {_range(pixels)} mm."]
    lines += ["", patients_text(evaluation)]
    return "\n".join(lines)


def _training(card: ModelCard) -> str:
    train, window = card.train, card.model.preprocess.window
    return (
        f"{card.parameters:,} parameters; {train.loss} loss, learning rate {train.learning_rate:g}, batches of "
        f"{train.batch_size}, crops of {train.crop} pixels, augmentation {train.augmentation}, seed {train.seed}. "
        f"Epoch {card.best_epoch} of {len(card.history)} is kept. "
        f"HU {window[0]:g} to {window[1]:g} become 0 to 1. "
        + "Made with "
        + ", ".join(f"{package} {version}" for package, version in sorted(card.versions.items()))
        + "."
    )


def _loading(name: str, model_uri: str) -> str:
    return (
        f"```\nboneseg predict --model {name}@champion SERIES --out masks/\n"
        f"boneseg predict --model {model_uri} SERIES --out masks/\n```"
    )


def _lineage(card: ModelCard, evaluation: EvaluationResult, dataset: Dataset) -> str:
    facts = {
        "model": card.model_hash,
        "training run": card.run,
        "trained on dataset": card.dataset_hash,
        "measured on dataset": dataset.dataset_hash,
        "frozen test set": evaluation.test_hash,
        "data fingerprint": dataset.fingerprint,
        "evaluation": evaluation.evaluation_uri,
    }
    return "\n".join(f"- {what}: `{value}`" for what, value in facts.items())


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g}" if math.isclose(low, high, rel_tol=1e-3) else f"{low:.3g} to {high:.3g}"
