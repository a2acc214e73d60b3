"""The numbers that the paper prints, to stand beside ours. Percent, milliseconds and counts as printed.

Z. Krawczyk, J. Starzynski, "Segmentation of bone structures with the use of deep learning techniques", Bulletin of the
Polish Academy of Sciences: Technical Sciences 69(3), 2021, e136751.
"""

from __future__ import annotations

from dataclasses import dataclass

CITATION = (
    "Z. Krawczyk, J. Starzynski, Segmentation of bone structures with the use of deep learning techniques, "
    "Bull. Pol. Acad. Sci. Tech. Sci. 69(3), 2021, e136751"
)

Classes = tuple[float, float, float, float]
"""Mean, background, patient outline, bone."""

FCN8, FCN32, PSPNET, UNET, SEGNET, VGG_UNET, RESNET_UNET = (
    "paper-fcn8/plain",
    "paper-fcn32/plain",
    "paper-pspnet/plain",
    "paper-unet/plain",
    "paper-segnet/plain",
    "paper-unet/vgg16",
    "paper-unet/resnet50",
)

TITLES = {
    FCN8: "FCN8",
    FCN32: "FCN32",
    PSPNET: "PSPNet",
    UNET: "U-Net",
    SEGNET: "SegNet",
    VGG_UNET: "VGG16-U-Net",
    RESNET_UNET: "ResNet50-U-Net",
}
"""The seven networks of the paper, as it orders them: architecture/encoder -> what a person calls it."""


@dataclass(frozen=True)
class Scores:
    """A row of Table 1 or 3."""

    epoch: int
    """The epoch that was kept."""
    iou: Classes
    dice: Classes
    accuracy: Classes

    @property
    def figures(self) -> tuple[float, ...]:
        """The twelve numbers in the order of our class-wise table."""
        return (*self.iou, *self.dice, *self.accuracy)


@dataclass(frozen=True)
class Cost:
    """A row of Table 2."""

    milliseconds: float
    """Mean time of one 512x512 image on an RTX 2080 Ti."""
    parameters: int
    trainable: int


@dataclass(frozen=True)
class SeriesScores:
    """A row of Table 4: IoU of one CT series."""

    series: str
    images: int
    iou: Classes


TABLE1 = {
    FCN8: Scores(10, (92.39, 99.78, 96.45, 80.95), (95.85, 99.89, 98.19, 89.47), (99.72, 99.81, 99.58, 99.78)),
    FCN32: Scores(10, (82.83, 99.29, 90.12, 59.09), (89.58, 99.64, 94.80, 74.28), (99.22, 99.37, 98.83, 99.46)),
    PSPNET: Scores(6, (83.26, 99.61, 92.78, 57.38), (89.66, 99.81, 96.26, 72.92), (99.42, 99.66, 99.14, 99.48)),
    UNET: Scores(10, (93.91, 99.76, 96.65, 85.32), (96.75, 99.88, 98.30, 92.08), (99.74, 99.79, 99.61, 99.83)),
    SEGNET: Scores(7, (90.30, 99.67, 95.30, 75.93), (94.58, 99.84, 97.60, 86.32), (99.63, 99.71, 99.45, 99.73)),
}
TABLE2 = {
    FCN8: Cost(57.6, 69_736_873, 69_734_953),
    FCN32: Cost(59.5, 69_769_603, 69_767_683),
    PSPNET: Cost(23.3, 3_282_819, 3_275_779),
    UNET: Cost(26.3, 4_472_323, 4_468_995),
    SEGNET: Cost(24.4, 3_698_179, 3_694_851),
}
TABLE3 = {
    UNET: Scores(30, (94.64, 99.83, 97.41, 86.67), (97.16, 99.92, 98.69, 92.86), (99.80, 99.85, 99.70, 99.84)),
    VGG_UNET: Scores(28, (96.55, 99.85, 98.05, 91.76), (98.21, 99.92, 99.02, 95.70), (99.85, 99.87, 99.78, 99.91)),
    RESNET_UNET: Scores(20, (96.92, 99.83, 98.05, 92.87), (98.41, 99.91, 99.01, 96.31), (99.85, 99.85, 99.77, 99.92)),
}
TABLE4 = (
    SeriesScores("1", 85, (97.10, 99.88, 98.59, 92.83)),
    SeriesScores("2", 152, (97.10, 99.87, 98.32, 93.10)),
    SeriesScores("3", 124, (96.25, 99.90, 97.96, 90.87)),
    SeriesScores("4", 143, (96.79, 99.88, 98.27, 92.22)),
    SeriesScores("5", 226, (97.04, 99.71, 97.66, 93.75)),
    SeriesScores("combined", 730, (96.92, 99.83, 98.05, 92.87)),
)

IMAGE_BONE_IOU = (57.49, 98.39, 87.15, 5.98)
"""Bone IoU of single images under the U-Net: least, greatest, mean, standard deviation."""

EPOCHS = {1: 10, 3: 30}
"""Epochs by table."""
STEPS, SIZE, BATCH = 512, 512, 2
TRAIN_IMAGES, VALIDATION_IMAGES, TRAIN_SERIES = 987, 97, 10
"""The images of validation are among those of training."""
TEST_IMAGES, TEST_SERIES = 730, 5
DEVICE = "RTX 2080 Ti"
