"""The schemes that come with boneseg. Codes are those of DICOM's context groups 4031 and 7151 (SNOMED CT)."""

from __future__ import annotations

from boneseg.scheme.record import Code, LabelClass, LabelScheme, Role

BACKGROUND = LabelClass(name="background", role=Role.BACKGROUND, colour=(0, 0, 0), calls=("air", "clear label"))
OUTLINE = LabelClass(
    name="patient outline",
    role=Role.BODY,
    colour=(238, 221, 204),
    code=Code(value="38266002", meaning="Entire body"),
    calls=("outline", "body", "external", "skin", "body outline", "patient"),
)

BONE = LabelScheme(
    name="bone",
    classes=(
        BACKGROUND,
        OUTLINE,
        LabelClass(
            name="bone",
            role=Role.BONE,
            colour=(213, 94, 0),
            code=Code(value="272673000", meaning="Bone"),
            calls=("bones", "skeleton"),
        ),
    ),
)
"""Three classes, as the paper has them: the default."""

_CODES = {
    "femur": ("71341001", "Femur"),
    "hip": ("29836001", "Hip"),
    "sacrum": ("54735007", "Sacrum"),
    "spine": ("421060004", "Spine"),
    "rib": ("113197003", "Rib"),
    "skull": ("89546000", "Skull"),
    "sternum": ("56873002", "Sternum"),
    "scapula": ("79601000", "Scapula"),
    "clavicula": ("51299004", "Clavicle"),
    "humerus": ("85050009", "Humerus"),
}
_CERVICAL = "14806007 39976000 113205007 5329002 36978003 36054005 87391001"
_THORACIC = "64864005 53733008 1626008 73071006 56401006 45296009 62487009 11068009 82687006 7610001 12989004 23215003"
_LUMBAR = "66794005 14293000 36470004 11994002 49668003"
_CALLS = {
    "hip": ("hip bone", "hip", "os coxae", "coxa", "innominate", "pelvis", "hemipelvis"),
    "clavicula": ("clavicle",),
    "scapula": ("shoulder blade",),
    "femur": ("thigh bone", "femoral bone"),
}


def _sided(bone: str, side: str, colour: tuple[int, int, int], value: int, number: str = "") -> LabelClass:
    other = "right" if side == "left" else "left"
    calls = [
        call
        for name in (bone, *_CALLS.get(bone, ()))
        for call in (
            f"{name} {side} {number}",
            f"{side} {name} {number}",
            f"{name} {number} {side}",
            f"{name} {side[0]} {number}",
            f"{side[0]} {name} {number}",
            f"{name} {number} {side[0]}",
        )
    ]
    ending = f" {number}" if number else ""
    code, meaning = _CODES[bone]
    return LabelClass(
        name=f"{bone} {side}{ending}",
        role=Role.BONE,
        partner=f"{bone} {other}{ending}",
        side="left" if side == "left" else "right",
        colour=colour,
        code=Code(value=code, meaning=meaning),
        calls=tuple(dict.fromkeys(call.strip() for call in calls)),
        values=(value,),
    )


def _middle(
    bone: str,
    colour: tuple[int, int, int],
    value: int,
    code: tuple[str, str] | None = None,
    calls: tuple[str, ...] = (),
) -> LabelClass:
    known = code or _CODES.get(bone)
    return LabelClass(
        name=bone,
        role=Role.BONE,
        colour=colour,
        code=Code(value=known[0], meaning=known[1]) if known else None,
        calls=calls,
        values=(value,),
    )


PELVIS = LabelScheme(
    name="pelvis",
    classes=(
        BACKGROUND,
        OUTLINE,
        _sided("hip", "left", (230, 159, 0), 1),
        _sided("hip", "right", (86, 180, 233), 2),
        _sided("femur", "left", (213, 94, 0), 3),
        _sided("femur", "right", (0, 114, 178), 4),
        _middle("sacrum", (0, 158, 115), 5, calls=("sacral bone", "os sacrum", "pelvis sacrum")),
        _middle("spine", (204, 121, 167), 6, calls=("vertebrae", "vertebral column", "lumbar spine", "vertebra")),
    ),
)
"""What the authors of the paper name as their next step: hip bones, femora, sacrum and spine."""


_GROUPS = {
    "vertebrae": "spine",
    "rib": "ribs",
    **dict.fromkeys(("scapula", "clavicula"), "shoulder girdle"),
}
"""First word of a name -> group in ``skeleton``; that of the vertebrae meets the class ``spine`` of ``pelvis``."""


def _skeleton() -> tuple[LabelClass, ...]:
    """Return the bones of TotalSegmentator's task ``total`` (version 2), in its order and with its values."""
    bones = [_middle("sacrum", (0, 158, 115), 25, calls=("sacral bone", "os sacrum", "pelvis sacrum"))]
    bones.append(_middle("vertebrae S1", (120, 94, 240), 26, ("54735007", "Sacrum"), ("S1", "S1 vertebra")))
    levels = [("L", _LUMBAR), ("T", _THORACIC), ("C", _CERVICAL)]
    value = 27
    for letter, listed in levels:
        codes = listed.split()
        for number in range(len(codes), 0, -1):
            level = f"{letter}{number}"
            calls = (level, f"{level} vertebra", f"vertebra {level}")
            shade = (60 + 15 * number, 90 + 5 * number, {"L": 200, "T": 150, "C": 100}[letter])
            bones.append(_middle(f"vertebrae {level}", shade, value, (codes[number - 1], f"{level} vertebra"), calls))
            value += 1
    first = {"humerus": 69, "scapula": 71, "clavicula": 73, "femur": 75, "hip": 77}
    shades = {"humerus": 40, "scapula": 80, "clavicula": 120, "femur": 160, "hip": 200}
    for bone, value in first.items():
        bones += [_sided(bone, "left", (230, shades[bone], 60), value)]
        bones += [_sided(bone, "right", (60, shades[bone], 230), value + 1)]
    bones.append(_middle("skull", (240, 228, 66), 91, calls=("cranium",)))
    for number in range(1, 13):
        bones.append(_sided("rib", "left", (255, 90 + 12 * number, 120), 91 + number, str(number)))
    for number in range(1, 13):
        bones.append(_sided("rib", "right", (120, 90 + 12 * number, 255), 103 + number, str(number)))
    bones.append(_middle("sternum", (0, 200, 200), 116, calls=("breastbone",)))
    return tuple(bone.model_copy(update={"group": _GROUPS.get(bone.name.split()[0])}) for bone in bones)


_ORGANS = (*range(1, 25), *range(51, 69), *range(79, 91), 117)
"""What TotalSegmentator's task ``total`` numbers beside bones: organs, vessels, muscles and cartilage."""
_NO_BONE = BACKGROUND.model_copy(update={"values": _ORGANS})
SKELETON = LabelScheme(name="skeleton", classes=(_NO_BONE, OUTLINE, *_skeleton()))
"""The bones that TotalSegmentator tells apart."""

BUILT_IN = {scheme.name: scheme for scheme in (BONE, PELVIS, SKELETON)}
