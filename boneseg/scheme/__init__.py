"""What the values of a mask mean: a label scheme, as a record that travels with dataset and model."""

from boneseg.scheme.builtin import BONE as BONE_SCHEME
from boneseg.scheme.builtin import BUILT_IN
from boneseg.scheme.labelling import Labelling
from boneseg.scheme.record import Code, LabelClass, LabelScheme, Role

__all__ = ["BONE_SCHEME", "BUILT_IN", "Code", "LabelClass", "LabelScheme", "Labelling", "Role"]
