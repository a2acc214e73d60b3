"""The three roles as classes of a mask: what the paper counts, and in what masks of any two schemes are comparable."""

COMMON_CLASSES = ("background", "patient outline", "bone")
BACKGROUND, OUTLINE, BONE = range(3)
