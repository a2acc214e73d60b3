import pydicom.sr._concepts_dict as known_concepts
import pytest
from pydantic import ValidationError

from boneseg.scheme import BONE_SCHEME, BUILT_IN, LabelClass, LabelScheme, Role
from boneseg.scheme.record import plain

PELVIS, SKELETON = BUILT_IN["pelvis"], BUILT_IN["skeleton"]


def scheme(*classes: LabelClass) -> LabelScheme:
    return LabelScheme(name="mine", classes=(LabelClass(name="air", role=Role.BACKGROUND), *classes))


def bone(name: str, **more: object) -> LabelClass:
    return LabelClass(name=name, role=Role.BONE, **more)


@pytest.mark.parametrize("built_in", BUILT_IN.values(), ids=lambda item: item.name)
def test_codes_are_those_of_dicoms_context_groups(built_in: LabelScheme) -> None:
    """Every code and meaning stands in the dictionary that pydicom makes of DICOM's part 16."""
    concepts = known_concepts.concepts["SCT"].values()
    pairs = {(code, meaning) for codes in concepts for code, (meaning, _) in codes.items()}
    for item in built_in.classes:
        if item.role != Role.BACKGROUND:
            assert item.code is not None
            assert (item.code.value, item.code.meaning) in pairs


@pytest.mark.parametrize("built_in", BUILT_IN.values(), ids=lambda item: item.name)
def test_every_name_and_value_in_files_means_one_class(built_in: LabelScheme) -> None:
    for value, item in enumerate(built_in.classes):
        for name in (item.name, *item.calls):
            assert built_in.value_of(name) == value
    values = [value for item in built_in.classes for value in item.values]
    assert len(values) == len(set(values))


@pytest.mark.parametrize("built_in", BUILT_IN.values(), ids=lambda item: item.name)
def test_mirroring_twice_is_nothing_and_changes_sides_alone(built_in: LabelScheme) -> None:
    there = built_in.mirrored
    assert [there[there[value]] for value in range(built_in.size)] == list(range(built_in.size))
    for value, item in enumerate(built_in.classes):
        other = built_in.classes[there[value]]
        assert (item.side, other.side) in ((None, None), ("left", "right"), ("right", "left"))
        assert item.name.replace("left", "right") == other.name.replace("left", "right")


def test_the_default_scheme_names_things_as_the_first_version_did() -> None:
    assert BONE_SCHEME.naming == ("background", "patient outline", "bone")
    assert PELVIS.identity in PELVIS.naming
    grouped = BONE_SCHEME.model_copy(update={"classes": (*BONE_SCHEME.classes[:2], bone("bone", group="all"))})
    assert grouped.naming != BONE_SCHEME.naming


def test_totalsegmentators_names_and_values_are_known() -> None:
    names = {25: "sacrum", 31: "vertebrae_L1", 50: "vertebrae_C1", 69: "humerus_left", 78: "hip_right", 91: "skull"}
    names |= {92: "rib_left_1", 104: "rib_right_1", 115: "rib_right_12", 116: "sternum"}
    by_value = {value: item for item in SKELETON.classes for value in item.values}
    for value, name in names.items():
        assert plain(by_value[value].name) == plain(name)
    assert len(SKELETON.bones) == 62


def test_groups_hold_their_members_and_bone_holds_all() -> None:
    mine = scheme(bone("hip left", group="girdle"), bone("hip right", group="girdle"), bone("femur"))
    assert mine.groups == {"bone": (1, 2, 3), "girdle": (1, 2)}


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ((), "at least 2"),
        ((LabelClass(name="skin", role=Role.BODY),), "at least one bone"),
        ((bone("a"), bone("a")), "the name a is there twice"),
        ((bone("a", values=(1,)), bone("b", values=(1,))), "the value 1 is there twice"),
        ((bone("a", partner="b"), bone("b")), "must name each other"),
        ((bone("a", partner="a"),), "must name each other"),
        ((bone("a", partner="c"),), "must name each other"),
        ((LabelClass(name="more", role=Role.BACKGROUND), bone("a")), "no other, is the background"),
        ((LabelClass(name="x", role=Role.BODY), LabelClass(name="y", role=Role.BODY), bone("a")), "at most one class"),
    ],
)
def test_a_scheme_that_contradicts_itself_is_refused(classes: tuple[LabelClass, ...], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        scheme(*classes)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"colour": (300, 0, 0)}, "less than or equal to 255"),
        ({"colour": (-1, 0, 0)}, "greater than or equal to 0"),
        ({"group": "<b>; x"}, "should match pattern"),
        ({"calls": ("Sacrum",)}, "the name or call sacrum is there twice"),
        ({"calls": ("os sacrum",)}, "the name or call ossacrum is there twice"),
        ({"name": "SACRUM"}, "the name or call sacrum is there twice"),
    ],
)
def test_what_would_fail_or_mislead_later_is_refused_at_once(change: dict[str, object], told: str) -> None:
    scheme = BUILT_IN["pelvis"].model_dump()
    scheme["classes"][7].update(change)
    with pytest.raises(ValidationError, match=told):
        LabelScheme.model_validate(scheme)
