"""What the name of a mask or segment says: a bone, the patient's outline, something else, or nothing.

Names are free text, which may hold a patient's name: only words of the lists below, and those by which the scheme of a
run calls its bones, are ever kept or shown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from enum import StrEnum


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BONES = _set(
    """
    bone bones osseous skeleton knochen os skull cranium calvaria calvarium mandible mandibula maxilla zygoma
    zygomatic sphenoid ethmoid vomer hyoid styloid palate vertebra vertebrae vertebral spine sacrum sacral coccyx
    rib ribs costa costae sternum sternal manubrium xiphoid scapula scapulae clavicle clavicles clavicula claviculae
    humerus humeri humeral ulna ulnae radius radii carpal carpals carpus metacarpal metacarpals scaphoid lunate
    triquetrum pisiform trapezium capitate hamate phalanx phalanges pelvis pelvic hip hips coxa coxae innominate
    ilium iliac ischium ischial pubis pubic acetabulum acetabular femur femurs femora femoral tibia tibiae tibial
    fibula fibulae fibular patella patellae patellar tarsal tarsals tarsus metatarsal metatarsals calcaneus talus
    navicular cuboid cuneiform
    """
)
"""Words that name a bone, unless one of ``_OTHERS`` stands beside them, as in "femoral artery"."""

_OTHERS = _set(
    """
    artery arteries arteria vein veins vena cava vessel vessels aorta trunk nerve nerves muscle muscles musculus
    ligament ligaments tendon tendons cartilage cartilages disc discs disk disks joint cord canal plexus gland
    glands lymph node nodes fat skin soft tissue cavity cavities sinus sinuses airway airways air gas effusion
    hemorrhage haemorrhage autochthon iliopsoas psoas gluteus quadriceps sartorius hamstrings deltoid trapezius
    pectoralis supraspinatus infraspinatus subscapularis masseter pterygoid temporalis digastric sternocleidomastoid
    platysma levator scalene brain cerebrum cerebellum brainstem ventricle eye eyes lens optic face tongue teeth
    tooth pulp pharynx nasopharynx oropharynx hypopharynx larynx thyroid cricoid parotid submandibular trachea
    bronchus bronchi esophagus oesophagus lung lungs lobe lobes pleura pleural heart myocardium atrium atrial
    pericardium pericardial pulmonary thymus mediastinum breast breasts diaphragm liver spleen pancreas gallbladder
    kidney kidneys renal adrenal stomach duodenum bowel intestine jejunum ileum colon caecum cecum rectum anus
    sigmoid bladder urethra ureter ureters prostate seminal uterus ovary ovaries cervix vagina testis testes penis
    carotid subclavian brachiocephalic portal splenic hepatic mesentery peritoneum background couch table clothes
    urinary constrictor thyrohyoid prevertebral intervertebral sacroiliac valve septum nucleus thalamus capsule
    sulcus subarachnoid coracobrachial serratus teres triceps biceps compartment nodule nodules bronchia aortic
    jugular coronary arterial venous appendage
    """
)
"""Words that name something which is no bone."""

_DOUBTS = _set(
    """
    tumor tumour tumors tumours lesion lesions metastasis metastases mets cyst cysts marrow implant implants
    prosthesis screw screws metal cement fracture fractures edema oedema fragment fragments uncertain ignore error
    errors not non no without minus removed landmark landmarks edge edges boundary
    """
)
"""Words beside which a name says nothing: a lesion of the bone is not the bone, a prosthesis of the hip no hip."""

_LESIONS = _set(
    """
    tumor tumour tumors tumours lesion lesions metastasis metastases mets cyst cysts marrow implant implants prosthesis
    screw screws metal cement edema oedema landmark landmarks edge edges boundary
    """
)
"""Of the doubts those that are no bone even where they name the bone that they are of."""
_LESION_PARTS = ("metasta", "tumor", "tumour", "lesion", "läsion")

_IGNORED = _set("ignore ignored unlabeled unlabelled")
_OUTLINES = _set("outline body patient external trunc extremities")
_BESIDE = _set(
    """
    left right l r upper lower superior inferior anterior posterior proximal distal middle medial lateral head neck
    shaft wing arch base crest hard cortical trabecular hand hands foot feet finger toe cervical thoracic lumbar
    occipital parietal frontal temporal nasal spinal costal internal common small large process space major minor
    maximus medius minimus subcutaneous torso skeletal thigh and
    """
)
"""Words that say which bone or which part, but do not name one."""
SIDES = _set("left right l r")
_SIDE_OF = {"lt": "left", "rt": "right"}
GENERIC = _set("label labels seg segs segment segmentation segmentations mask masks roi structure whole entire ct nii")
_KNOWN = _BONES | _OTHERS | _DOUBTS | _IGNORED | _OUTLINES | _BESIDE | GENERIC
_LEVEL = re.compile(r"(?<![A-Za-z0-9])[CTLS]\d{1,2}(?![A-Za-z0-9])", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_NUMBER = re.compile(r"\d{1,2}")
_SHOWN = 12


class Meaning(StrEnum):
    """What a name says."""

    BONE = "bone"
    OUTLINE = "outline"
    OTHER = "other"
    UNKNOWN = "unknown"


def words(name: str) -> list[str]:
    """Return the words of a name in lower case: ``FemurLeft_2`` has femur, left and 2; ``L5`` stays one word."""
    found: list[str] = []
    rest = 0
    for level in _LEVEL.finditer(name):
        found += [*_WORD.findall(name[rest : level.start()]), level.group()]
        rest = level.end()
    lower = (word.lower() for word in (*found, *_WORD.findall(name[rest:])))
    return [_SIDE_OF.get(word, word) for word in lower]


def is_level(word: str) -> bool:
    """Say whether a word is a level of the spine, such as ``l5``."""
    return bool(_LEVEL.fullmatch(word))


def is_part(word: str) -> bool:
    """Say whether a word says which bone or which part of one, such as ``left``, but names none."""
    return word in _BESIDE or bool(_LEVEL.fullmatch(word))


def known_words(name: str) -> str:
    """Return the words of a name of these lists, levels of the spine and small numbers; ``x`` for any other word."""
    return " ".join(_known(word) for word in words(name))


def best_name(label: str, code: str) -> str:
    """Return what says more of a segment: the free text, or the meaning of its code where the text says nothing."""
    found = words(label)
    says_nothing = meaning(found) == Meaning.UNKNOWN and _DOUBTS.isdisjoint(found)
    if says_nothing and meaning(words(code)) != Meaning.UNKNOWN:
        return code
    sides = {word for word in words(code) if word in ("left", "right")}
    return f"{label} {sides.pop()}" if names_bone(found) and SIDES.isdisjoint(found) and len(sides) == 1 else label


def words_of(calls: Iterable[str]) -> frozenset[str]:
    """Return the words of a scheme's names of bones that are not of these lists: they name bones too."""
    found = {word for call in calls for word in words(call)}
    return frozenset(word for word in found if not _is_known(word))


def is_known(found: Iterable[str], more: Collection[str] = ()) -> bool:
    """Say whether each of some words is of these lists or of ``more``, a level of the spine or a small number."""
    return all(word in more or _is_known(word) for word in found)


def structure(found: Iterable[str], more: Collection[str] = ()) -> frozenset[str]:
    """Return those of some words that say which structure it is."""
    return frozenset(word for word in found if is_known([word], more) and word not in GENERIC)


def names_bone(found: Collection[str], more: Collection[str] = ()) -> bool:
    """Say whether some words name a bone, whatever else they name."""
    return not _BONES.isdisjoint(found) or any("bone" in word or word in more for word in found)


def is_ignored(found: Iterable[str]) -> bool:
    """Say whether a name stands for voxels of which nobody says what they are, as nnU-Net's ``ignore``."""
    told = {word for word in found if word not in GENERIC}
    return bool(told) and told <= _IGNORED


def says_no_bone(found: Collection[str]) -> bool:
    """Say whether some words, all of them known, name something else than a bone: a colon, or a tumour."""
    rest = [word for word in found if not any(part in word for part in _LESION_PARTS)]
    if (len(rest) < len(found) or not _LESIONS.isdisjoint(found)) and is_known(rest):
        return True
    doubtful = not _DOUBTS.isdisjoint(found) and not names_bone(found)
    return is_known(found) and (doubtful or meaning(found) == Meaning.OTHER)


def meaning(found: Collection[str], more: Collection[str] = ()) -> Meaning:
    """Say what the words of a name say; ``more`` are words that name bones beside those of the lists."""
    if not _OTHERS.isdisjoint(found):
        return Meaning.OTHER
    if not _DOUBTS.isdisjoint(found):
        return Meaning.UNKNOWN
    if names_bone(found, more):
        return Meaning.BONE
    told = [word for word in found if word not in GENERIC]
    # A level alone is a vertebra; beside other words it may as well number a patient.
    if told and all(_LEVEL.fullmatch(word) or word in _BESIDE for word in told) and len(told) == len(found):
        return Meaning.BONE if any(_LEVEL.fullmatch(word) for word in told) else Meaning.UNKNOWN
    if any("outline" in word for word in told) or (told and _OUTLINES.issuperset(told)):
        return Meaning.OUTLINE
    return Meaning.UNKNOWN


def shown(names: Iterable[Iterable[str]], more: Collection[str] = ()) -> str:
    """Return structures for a message, each once, a dozen at most."""
    known = {" ".join(word for word in name if is_known([word], more) and word not in GENERIC) for name in names}
    listed = sorted(known - {""})
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def _known(word: str) -> str:
    if _is_known(word):
        return word
    return next((part for part in ("bone", "outline") if part in word), "x")


def _is_known(word: str) -> bool:
    return word in _KNOWN or bool(_LEVEL.fullmatch(word) or _NUMBER.fullmatch(word))
