"""Synthetic pelvic CT series with labels: for the demo, for tests, for trying things out without patients."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from boneseg.dicom.ct import write_ct_series
from boneseg.dicom.segmentation_write import write_segmentation
from boneseg.geometry import Geometry, axial
from boneseg.hu import AIR_HU, SCANNER_HIGHEST_HU, to_hu
from boneseg.phantom.shapes import Field, Plane
from boneseg.phantom.skeleton import Bone, skeleton
from boneseg.phantom.texture import SmoothField
from boneseg.phantom.tissue import AIR, Body, Organ, Outside, organs, surroundings
from boneseg.scheme.roles import BACKGROUND, BONE, OUTLINE

FIELD_OF_VIEW_MM = 460.0
_BOTTOM_MM, _TOP_MM = -150.0, 200.0
"""Whole coverage: from the middle of the thigh to the third lumbar vertebra; 0 is the hip joints."""
_THICKEST_MM = 8.0
_MIDDLE_MM = 12.0
"""Middle of the field of view in y, so that body and couch fill it."""
_JOINT_MM = 2.2
_CREATED = datetime(2000, 1, 1)


@dataclass(frozen=True)
class Phantom:
    """A synthetic CT series.

    Attributes:
        hu: (slice, row, column), axial, feet to head.
        label: 0 background, 1 patient outline, 2 bone with its marrow; vessels, markers and couch are not bone.
        geometry: of both.
    """

    hu: NDArray[np.int16]
    label: NDArray[np.uint8]
    geometry: Geometry


def make_phantom(
    seed: int, slices: int = 64, size: int = 512, spacing_mm: tuple[float, float, float] | None = None
) -> Phantom:
    """Make the CT of a pelvis; the same arguments give the same voxels.

    Args:
        seed: the patient: anatomy, density, contrast medium, couch and markers depend on it.
        slices: how many.
        size: rows and columns.
        spacing_mm: (slice, row, column); none = a field of view of 460 mm, and slices from the middle of the thigh to
            L3, at most 8 mm apart: with fewer slices the coverage shrinks around the hips.
    """
    if spacing_mm is None:
        pixel = FIELD_OF_VIEW_MM / size
        spacing_mm = (min(_THICKEST_MM, (_TOP_MM - _BOTTOM_MM) / max(slices - 1, 1)), pixel, pixel)
    length = spacing_mm[0] * (slices - 1)
    share = length / (_TOP_MM - _BOTTOM_MM)
    origin = np.array(
        [-spacing_mm[2] * (size - 1) / 2, _MIDDLE_MM - spacing_mm[1] * (size - 1) / 2, _BOTTOM_MM * share]
    )
    geometry = axial((slices, size, size), spacing_mm)
    geometry.affine[:3, 3] = origin
    patient = _Patient(seed)
    hu = np.empty(geometry.shape, dtype=np.int16)
    label = np.empty(geometry.shape, dtype=np.uint8)
    for index in range(slices):
        hu[index], label[index] = patient.scan(geometry, index)
    return Phantom(hu, label, geometry)


def write_phantom(
    folder: Path,
    seed: int,
    slices: int = 64,
    size: int = 512,
    spacing_mm: tuple[float, float, float] | None = None,
) -> Path:
    """Write a phantom as ``dicom/*.dcm`` (CT Image Storage) and, last, ``label.dcm`` (DICOM SEG).

    Returns:
        The folder.
    """
    phantom = make_phantom(seed, slices, size, spacing_mm)
    name = f"PHANTOM-{seed:04d}"
    identity = f"{name} {phantom.geometry.shape} {phantom.geometry.spacing}"
    files = write_ct_series(
        folder / "dicom", phantom.hu, phantom.geometry, identity=identity, patient_id=name, description="pelvis phantom"
    )
    write_segmentation(folder / "label.dcm", phantom.label, phantom.geometry, files, created=_CREATED)
    return folder


class _Patient:
    """All that a seed decides, and the scanner that looks at it."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([2024, seed])
        self._seed = seed
        self._scale = rng.uniform(0.93, 1.07) * rng.uniform(0.97, 1.03, 3)
        self._turn, self._nod, self._lean = rng.normal(0, 0.035), rng.normal(0, 0.06), rng.normal(0, 0.02)
        self._shift = rng.normal(0, 6, 2)
        self._warps = [(SmoothField(rng, 45.0), 4.0), (SmoothField(rng, 45.0), 4.0)]
        self._rough = [(SmoothField(rng, 11.0), 0.7), (SmoothField(rng, 11.0), 0.7)]
        self._coarse = SmoothField(rng, 14.0)
        self._bones: list[Bone] = skeleton(rng)
        self._body = Body(rng, float(self._scale[1]), float(self._shift[1]))
        self._organs: list[Organ] = organs(rng)
        self._outside: list[Outside] = surroundings(rng, self._body)
        self._cortical, self._spongy = rng.uniform(500, 1050), rng.uniform(40, 160)
        self._noise, self._blur = rng.uniform(12, 24), rng.uniform(0.55, 0.8)

    def scan(self, geometry: Geometry, index: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """Return HU and label of one slice: the mean over its thickness, blurred, with noise."""
        rng = np.random.default_rng([2024, self._seed, index])
        thickness, pixel, _ = geometry.spacing
        shape = geometry.shape[1:]
        x = geometry.affine[0, 3] + pixel * np.arange(shape[1])
        y = geometry.affine[1, 3] + pixel * np.arange(shape[0])
        z = float(geometry.affine[2, 3] + index * thickness)
        grain = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 0.9 / pixel)
        grain /= max(float(grain.std()), 1e-6)
        layers = [self._layer(x, y, z + offset * thickness, pixel, grain) for offset in (-0.25, 0.25)]
        hu, bone, skin = (sum(parts) / len(layers) for parts in zip(*layers, strict=True))
        hu = gaussian_filter(hu, self._blur / pixel) + self._scanner_noise(rng, skin, pixel)
        circle = np.hypot(x, y[:, np.newaxis] - _MIDDLE_MM) < FIELD_OF_VIEW_MM / 2 + 20
        hu = np.where(circle, np.minimum(hu, SCANNER_HIGHEST_HU), AIR_HU)
        label = np.where(skin < 0, OUTLINE, BACKGROUND).astype(np.uint8)
        label[bone >= 0.5] = BONE
        return to_hu(hu), label

    def _layer(
        self, x: NDArray[np.float64], y: NDArray[np.float64], z: float, pixel: float, grain: Field
    ) -> tuple[Field, Field, Field]:
        """Return HU, share of bone, and distance to the skin of an infinitely thin slice."""
        coarse = self._coarse.at(x, y, z)
        plane = self._plane(x, y, z, pixel)
        hu = np.full(coarse.shape, AIR, dtype=np.float32)
        skin = self._body.distance(plane)
        self._body.paint(hu, plane, skin, coarse, grain)
        for organ in self._organs:
            organ.paint(hu, plane, grain)
        bone = self._paint_bones(hu, plane, coarse, grain)
        hu[(skin > 0) & (hu > AIR)] = AIR
        for thing in self._outside:
            thing.paint(hu, plane, skin)
        bone[skin > 0] = 0
        return hu, bone, skin

    def _plane(self, x: NDArray[np.float64], y: NDArray[np.float64], z: float, pixel: float) -> Plane:
        """Return the slice in the standard patient's coordinates: moved, turned, scaled and warped."""
        width, depth, height = 1 / self._scale
        level = z * height
        matrix = np.array(
            [
                [width, -self._turn * width, -width * (self._shift[0] + self._lean * z)],
                [self._turn * depth, depth, -depth * (self._shift[1] + self._nod * z)],
                [0, 0, 1],
            ]
        )
        warps = [
            sum(field.at(x, y, z) * mm for field, mm in pair) for pair in zip(self._warps, self._rough, strict=True)
        ]
        columns, rows = x.astype(np.float32)[np.newaxis], y.astype(np.float32)[:, np.newaxis]
        first, second = (
            row[0] * columns + row[1] * rows + row[2] + warp for row, warp in zip(matrix, warps, strict=False)
        )
        to_mm = np.array([[pixel, 0, x[0]], [0, pixel, y[0]], [0, 0, 1]])
        return Plane(
            first.astype(np.float32),
            second.astype(np.float32),
            level,
            matrix @ to_mm,
            pixel * float(width),
            columns,
            rows,
        )

    def _paint_bones(self, hu: Field, plane: Plane, coarse: Field, grain: Field) -> Field:
        """Draw bones with a hard shell over a spongy core; return each pixel's share of bone."""
        nearest = np.full(hu.shape, 1e3, dtype=np.float32)
        share = np.zeros(hu.shape, dtype=np.float32)
        for bone in self._bones:
            drawn = bone.draw(plane)
            if drawn is None:
                continue
            window, distance = drawn
            # A joint keeps a gap of cartilage to the bones drawn before.
            distance = np.maximum(distance, _JOINT_MM - nearest[window])
            nearest[window] = np.minimum(nearest[window], distance)
            core = self._spongy + bone.core_at(plane.z) + 55 * grain[window] + 35 * coarse[window]
            shell = self._cortical + 150 * coarse[window] + 40 * grain[window]
            hard = 1 / (1 + np.exp(-np.clip((bone.cortex_at(plane.z) + distance) / 0.45, -30, 30)))
            part = np.clip(0.5 - distance / plane.pixel, 0, 1)
            target = hu[window]
            target += part * (core + (shell - core) * hard - target)
            share[window] = np.maximum(share[window], part)
        return share

    def _scanner_noise(self, rng: np.random.Generator, skin: Field, pixel: float) -> Field:
        """Return correlated noise, stronger deep in the body, with streaks from side to side."""
        depth = np.clip(-skin / 110, 0, 1)
        noise = gaussian_filter(rng.standard_normal(skin.shape, dtype=np.float32), 0.75 / pixel)
        streaks = gaussian_filter(
            rng.standard_normal(skin.shape, dtype=np.float32), (0.8 / pixel, 12 / pixel), truncate=2.0
        )
        noise /= max(float(noise.std()), 1e-6)
        streaks /= max(float(streaks.std()), 1e-6)
        strength = self._noise * (0.5 + depth)
        field: Field = strength * (noise + 0.5 * depth * streaks)
        return field
