"""The label scheme: what the values of a mask mean."""

CLASSES = ("background", "patient outline", "bone")
"""Class names by label value: 0, 1, 2."""

BACKGROUND, OUTLINE, BONE = range(3)
