"""From the name of an augmentation to the augmentation: the values of ``train.augmentation``."""

from __future__ import annotations

from collections.abc import Callable

from boneseg.augment.base import Augmentation, Image, Label
from boneseg.augment.basic import BasicAugmentation
from boneseg.augment.ct import CtAugmentation
from boneseg.augment.paper import PaperAugmentation
from boneseg.hu import normalise
from boneseg.scheme import Labelling
from boneseg.settings.schema import PreprocessSettings


class NoAugmentation(Augmentation):
    """Changes nothing."""

    def __init__(self, crop: int, preprocess: PreprocessSettings, labelling: Labelling) -> None:
        super().__init__(crop, crop, preprocess, labelling)

    def __call__(self, hu: Image, label: Label, pixel_mm: float, seed: int) -> tuple[Image, Label]:
        """Normalise the window."""
        return normalise(hu, self.preprocess.window), label


AUGMENTATIONS: dict[str, Callable[[int, PreprocessSettings, Labelling], Augmentation]] = {
    "none": NoAugmentation,
    "basic": BasicAugmentation,
    "ct": CtAugmentation,
    "paper": PaperAugmentation,
}


def build_augmentation(
    name: str, crop: int, preprocess: PreprocessSettings, labelling: Labelling | None = None
) -> Augmentation:
    """Return an augmentation by its name; one object must not be shared by threads.

    Args:
        name: as ``train.augmentation`` has it.
        crop: side of the training crop in pixels.
        preprocess: how HU become the network's numbers.
        labelling: what the label's values are; none = the three classes.
    """
    return AUGMENTATIONS[name](crop, preprocess, labelling or Labelling())
