"""What names of masks and segments say."""

import pytest

from boneseg.ingest.anatomy import Meaning, best_name, known_words, meaning, words

NAMES = {
    Meaning.BONE: "femur_left hip_right sacrum vertebrae_L5 rib_left_10 T12 skull sternum scapula_left clavicula_right "
    "humerus_left ilium patella tibia FemurLeft Left-Femur FEMUR_L Entire_femur vertebral_body os_coxae pelvis bones "
    "metatarsal mandible cortbone",
    Meaning.OTHER: "colon urinary_bladder femoral_artery iliac_vena_left spinal_cord costal_cartilages gluteus_maximus "
    "autochthon_left intervertebral_discs kidney_cyst_left vertebral_artery temporal_lobe levator_scapulae background",
    Meaning.OUTLINE: "body PatientOutline patient outline Whole_body patientoutline external",
    Meaning.UNKNOWN: "label 2 s1_mask Segment_1 bone_lesion hip_implant not_bone MUSTERMANN c1_thing",
}


@pytest.mark.parametrize(("name", "says"), [(name, says) for says, names in NAMES.items() for name in names.split()])
def test_names_say_what_they_are(name: str, says: Meaning) -> None:
    assert meaning(words(name)) == says


def test_only_words_of_anatomy_are_kept_and_say_the_same() -> None:
    assert known_words("Mustermann_femur_left_19551231") == "x femur left x"
    for name in " ".join(NAMES.values()).split():
        assert meaning(words(known_words(name))) == meaning(words(name))


@pytest.mark.parametrize(
    ("label", "code", "best"),
    [
        ("Segment_1", "Femur", "Femur"),
        ("", "Bone structure of ilium Left", "Bone structure of ilium Left"),
        ("colon", "Bone", "colon"),
        ("left femur", "Tissue", "left femur"),
        ("bone tumor", "Bone", "bone tumor"),
        ("Segment_1", "", "Segment_1"),
    ],
)
def test_the_code_speaks_where_the_text_says_nothing(label: str, code: str, best: str) -> None:
    assert best_name(label, code) == best
