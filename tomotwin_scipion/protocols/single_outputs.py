"""An output of its own for each target that was picked, beside that of all of them.

Extraction and averaging take whole sets. So picks of several species are wanted one by one, each with the box of its own
size; the group ids are those of the output of all, and the same table says what they are.
"""

from typing import Any, Dict, List

from tomo.objects import SetOfCoordinates3D

from ..clusters import output_name
from ..constants import OUTPUT_COORDINATES
from ..targets import Target, read_measured

OUTPUT_FRONT = "coordinates"
"""In front of the name of a target in that of its output."""


def define_single_outputs(protocol: Any, targets: List[Target], references: str) -> None:
    """Define an output for each target with picks; `references` is the engine's file, which knows how large they are.

    Outputs of targets that an earlier start of the run had picked stay: others may go on from them, and Scipion would bring
    back what is deleted here.
    """
    everything = getattr(protocol, OUTPUT_COORDINATES)
    measured = read_measured(references)
    names: List[str] = []
    sets: Dict[int, SetOfCoordinates3D] = {}
    for target in targets:
        name = output_name(OUTPUT_FRONT, target.name, names)
        names.append(name)
        output = SetOfCoordinates3D.create(protocol._getPath(), suffix=name)
        output.copyInfo(everything)
        # The pointer, not the set that it points to: a set apart from its run could not be found again.
        output.setPrecedents(everything._precedentsPointer)
        output.setBoxSize(protocol._boxOf(measured[target.name].diameter))
        output.setObjLabel(target.name)
        sets[target.group] = output
    for item in everything.iterCoordinates():
        sets[item.getGroupId()].append(item.clone())
    for name, output in zip(names, sets.values()):
        if output.getSize():
            output.write()
            protocol._defineOutputs(**{name: output})
            protocol._defineSourceRelation(protocol.inputEmbeddings, output)
