"""Picks of one molecule in tomograms: what *orient picks* and *extract subtomograms* ask first, and its checks.

The positions may be seen in another binning or reconstruction of the same tilt series than that which was picked in:
tomograms are told apart by their tsId, and positions are scaled by the ratio of the voxel sizes.
"""

from typing import Any, List, Optional

from pyworkflow.object import Pointer
from pyworkflow.protocol import params
from tomo.objects import SetOfTomograms

from ..enabled import groups_of, ts_ids


def define_positions_params(form: Any) -> None:
    """Add positions, their group and the tomograms to the section *Input*."""
    form.addParam(
        "inputCoordinates",
        params.PointerParam,
        pointerClass="SetOfCoordinates3D",
        important=True,
        label="Picks",
        help="Centres of the particles, by this software or any other.",
    )
    form.addParam(
        "group",
        params.IntParam,
        default=0,
        label="Group id",
        help="Which target of picks that have several; the summary of the picking run says what each group is. 0 where there "
        "is one group only.",
    )
    define_other_tomograms(
        form,
        "Give others for another binning or reconstruction of the same tilt series: finer ones, with their CTF corrected, make "
        "better averages.",
    )


def define_other_tomograms(form: Any, text: str, condition: str = "True") -> None:
    """Add the choice of other tomograms than those in which was picked, with a `text` that says what for."""
    form.addParam(
        "otherTomograms",
        params.BooleanParam,
        default=False,
        condition=condition,
        label="Use other tomograms?",
        help="*No* takes those in which was picked, even where Scipion has filled in the field below by itself. "
        + text,
    )
    form.addParam(
        "inputTomograms",
        params.PointerParam,
        pointerClass="SetOfTomograms",
        allowsNull=True,
        condition=f"{condition} and otherTomograms",
        label="Tomograms",
        help="They are matched by their tsId, and may be of another voxel size.",
    )


def other_tomograms(protocol: Any) -> Optional[SetOfTomograms]:
    """Other tomograms than those in which was picked, where they are wanted."""
    return protocol.inputTomograms.get() if protocol.otherTomograms else None


def validate_other_tomograms(protocol: Any) -> List[str]:
    """A sentence where other tomograms are wanted and none are given."""
    if protocol.otherTomograms and protocol.inputTomograms.get() is None:
        return ["Tomograms: give them, or say No to the use of others than those in which was picked."]
    return []


def tomograms_of(protocol: Any) -> SetOfTomograms:
    """The tomograms that are looked at."""
    return tomograms_pointer(protocol).get()


def tomograms_pointer(protocol: Any) -> Pointer:
    """What points to them."""
    if other_tomograms(protocol) is not None:
        return protocol.inputTomograms
    return protocol.inputCoordinates.get()._precedentsPointer


def chosen_group(protocol: Any) -> int:
    """The group that is wanted: the one named, else the only one."""
    if protocol.group.get():
        return protocol.group.get()
    return _groups(protocol)[0]


def validate_positions(protocol: Any) -> List[str]:
    """Sentences about what cannot be; an empty list when all is well."""
    groups = _groups(protocol)
    errors = validate_other_tomograms(protocol)
    if not groups:
        errors.append("Picks: there are none.")
    elif not protocol.group.get() and len(groups) > 1:
        listed = ", ".join(str(group) for group in groups)
        errors.append(f"Group id: the picks have the groups {listed}; name one of them.")
    elif protocol.group.get() and protocol.group.get() not in groups:
        errors.append(f"Group id: the picks have no group {protocol.group.get()}.")
    tomograms = tomograms_of(protocol)
    if tomograms is None:
        return errors + ["Tomograms: the picks do not say which tomograms they are in; choose them."]
    missing = set(ts_ids(protocol.inputCoordinates.get())) - set(ts_ids(tomograms))
    if missing:
        errors.append(f"Tomograms: {sorted(missing)[0]}, in which there are picks, is not among them (tsIds differ).")
    return errors


def _groups(protocol: Any) -> List[int]:
    return groups_of(protocol.inputCoordinates.get())
