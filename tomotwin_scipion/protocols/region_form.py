"""Where in the tomograms to look: the part of the form, its checks, and the engine's options out of it."""

from typing import Any, Dict, Iterable, List

from pyworkflow.protocol import params
from pyworkflow.utils import makePath
from tomo.objects import SetOfTomograms, Tomogram, TomoMask

from ..convert import link_tomogram

SWITCHES = {"--auto-slab": "autoSlab", "--exclude-gold": "excludeGold", "--exclude-carbon": "excludeCarbon"}
"""Switches of the engine, and the form's."""


def define_region_params(form: Any, found: bool) -> None:
    """Add the section *Region* to a form; `found`: whether specimen, gold and carbon are looked for by default."""
    form.addSection(label="Region")
    form.addParam(
        "inputMasks",
        params.PointerParam,
        pointerClass="SetOfTomoMasks, Volume",
        allowsNull=True,
        label="Masks",
        help="Only voxels inside the mask count: those that are not 0, or, where it has soft edges, those of at least half of "
        "its height. What is no mask, such as a tomogram, is refused. A set of masks is matched to the tomograms by tsId, and "
        "tomograms without one are taken whole; a single volume holds for all tomograms. Masks have the "
        "size in voxels of their tomogram. They may come from the protocol *create mask*, from a segmentation, or be "
        "drawn by hand.\nAll that is chosen on this page must hold together.",
    )
    planes = form.addLine(
        "Planes (z)",
        help="First and last plane in z, in voxels of the tomogram and counted from 0, the same for all tomograms. Empty: "
        "all. Use it where the specimen lies alike in all of them, else the automatic slab.",
    )
    planes.addParam("zFirst", params.IntParam, allowsNull=True, default=None, label="first")
    planes.addParam("zLast", params.IntParam, allowsNull=True, default=None, label="last")
    switches = (
        (
            "autoSlab",
            "Only the specimen?",
            "Finds the slab of ice between the empty spaces above and below it, tilted or bent as it may be, from the texture "
            "of the tomogram. Try it where picks lie above or below the ice.",
        ),
        (
            "excludeGold",
            "Exclude gold?",
            "Leaves out gold beads and other very dark blobs, such as ice crystals, with a halo of 100 Å. Try it where picks "
            "sit on fiducials.",
        ),
        (
            "excludeCarbon",
            "Exclude carbon?",
            "Leaves out carbon film that reaches in from the rim of the tomogram. Try it where picks lie along its edge.",
        ),
    )
    for name, label, text in switches:
        form.addParam(name, params.BooleanParam, default=found, label=label, help=text)


def validate_region_params(protocol: Any, tomograms: SetOfTomograms) -> List[str]:
    """Sentences about what cannot be; an empty list when all is well."""
    errors = []
    first, last = protocol.zFirst.get(), protocol.zLast.get()
    masks = protocol.inputMasks.get()
    if (first is None) != (last is None):
        errors.append("Planes (z): give both the first and the last, or none.")
    elif first is not None and not 0 <= first <= last:
        errors.append("Planes (z): they are counted from 0, with the smaller number first.")
    if isinstance(masks, Tomogram) and not isinstance(masks, TomoMask):
        errors.append("Masks: this is a tomogram; give a mask, which is 0 where nothing is to be looked for.")
    if errors or (first is None and masks is None):
        return errors
    sizes = {item.getTsId(): tuple(item.getDim()) for item in tomograms.iterItems()}
    matched = _masks_of(masks, sizes)
    for tsId, size in sizes.items():
        if first is not None and last >= size[2]:
            return [f"Planes (z): {tsId} has planes 0 to {size[2] - 1}, and {last} is none of them."]
        own = tuple(matched[tsId].getDim()) if tsId in matched else size
        if own != size:
            have, want = (" × ".join(str(side) for side in sides) for sides in (own, size))
            return [f"Masks: that of {tsId} has {have} voxels and the tomogram {want}; give one of the same size."]
    if masks is not None and not matched and not tomograms.isStreamOpen():
        return ["Masks: none of them belongs to one of the tomograms (tsIds differ)."]
    return []


def warn_of_region_params(protocol: Any, tsIds: Iterable[str]) -> List[str]:
    """A sentence where some tomograms have no mask."""
    masks = protocol.inputMasks.get()
    missing = [] if masks is None else sorted(set(tsIds) - set(_masks_of(masks, tsIds)))
    if not missing:
        return []
    return [f"{len(missing)} tomogram(s) have no mask and are taken whole, the first is {missing[0]}."]


def region_args(protocol: Any, tsId: str) -> List[Any]:
    """Options of ``tomotwin locate`` and ``tomotwin mask``, with the tomogram's mask linked where the engine reads it."""
    args: List[Any] = []
    mask = _masks_of(protocol.inputMasks.get(), [tsId]).get(tsId)
    if mask is not None:
        folder = protocol._getTmpPath("masks")
        makePath(folder)
        args += ["--mask", link_tomogram(mask, folder)]
    if protocol.zFirst.get() is not None:
        args += ["--z-range", protocol.zFirst.get(), protocol.zLast.get()]
    return args + [option for option, name in SWITCHES.items() if getattr(protocol, name)]


def region_settings(protocol: Any) -> List[Any]:
    """Everything the region depends on."""
    masks = protocol.inputMasks.get()
    settings = [None if masks is None else masks.getFileName(), protocol.zFirst.get(), protocol.zLast.get()]
    return settings + [getattr(protocol, name).get() for name in SWITCHES.values()]


def _masks_of(masks: Any, tsIds: Iterable[str]) -> Dict[str, Tomogram]:
    """The masks by tsId, of those tomograms that have one."""
    if masks is None:
        return {}
    if isinstance(masks, SetOfTomograms):
        wanted = set(tsIds)
        return {item.getTsId(): item.clone() for item in masks.iterItems() if item.getTsId() in wanted}
    found = {}
    for tsId in tsIds:
        mask = Tomogram()
        mask.setLocation(masks.getLocation())
        mask.setTsId(tsId)
        found[tsId] = mask
    return found
