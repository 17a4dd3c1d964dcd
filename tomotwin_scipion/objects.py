"""Scipion objects of the plugin: a trained model, and tomograms that were embedded with one."""

from typing import Any, List, Optional, Set

import pyworkflow.object as pwobj
from pwem.objects import EMObject, EMSet
from tomo.objects import SetOfTomograms, Tomogram

from .constants import RELEASED_MODEL


class TomoTwinModel(EMObject):
    """A trained network: the path of its weights (safetensors, with their model card in the header)."""

    def __init__(self, path: Optional[str] = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._path = pwobj.String(path)

    def getPath(self) -> str:
        return self._path.get()

    def setPath(self, path: str) -> None:
        self._path.set(path)

    def getFiles(self) -> Set[str]:
        return {self.getPath()}

    def __str__(self) -> str:
        return f"{self.getClassName()} ({self.getPath()})"


class TomogramEmbedding(EMObject):
    """The dense embedding of one tomogram: a Zarr folder, and which tomogram it came from."""

    TS_ID_FIELD = "_tsId"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tsId = pwobj.String()
        self._filename = pwobj.String()
        self._tomogram = pwobj.String()
        self._samplingRate = pwobj.Float()

    def getTsId(self) -> str:
        return self._tsId.get()

    def setTsId(self, tsId: str) -> None:
        self._tsId.set(tsId)

    def getFileName(self) -> str:
        """Path of the Zarr folder, relative to the project."""
        return self._filename.get()

    def setFileName(self, path: str) -> None:
        self._filename.set(path)

    def getTomogramFileName(self) -> str:
        return self._tomogram.get()

    def getSamplingRate(self) -> float:
        """Voxel size of the tomogram as it was given, in A (the embedding knows the model's)."""
        return self._samplingRate.get()

    def setTomogram(self, tomogram: Tomogram) -> None:
        """Take over what identifies the tomogram: tsId, file and voxel size."""
        self._tsId.set(tomogram.getTsId())
        self._tomogram.set(tomogram.getFileName())
        self._samplingRate.set(tomogram.getSamplingRate())

    def getFiles(self) -> Set[str]:
        return {self.getFileName()}

    def __str__(self) -> str:
        return f"{self.getClassName()} ({self.getTsId()})"


class SetOfTomogramEmbeddings(EMSet):
    """Embedded tomograms, with a pointer to the tomograms and the model that they were embedded with."""

    ITEM_TYPE = TomogramEmbedding
    EXPOSE_ITEMS = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tomogramsPointer = pwobj.Pointer()
        self._samplingRate = pwobj.Float()
        self._model = pwobj.String(RELEASED_MODEL)

    def getTomograms(self, asPointer: bool = False) -> Any:
        """The embedded `SetOfTomograms`, or the pointer to it (which is what an output set must keep)."""
        return self._tomogramsPointer if asPointer else self._tomogramsPointer.get()

    def setTomograms(self, pointer: pwobj.Pointer) -> None:
        tomograms: SetOfTomograms = pointer.get()
        self._tomogramsPointer.copy(pointer)
        self._samplingRate.set(tomograms.getSamplingRate())

    def getSamplingRate(self) -> float:
        """Voxel size of the tomograms, in A."""
        return self._samplingRate.get()

    def getModel(self) -> str:
        """What the engine's ``--model`` took: ``released`` or the path of a model."""
        return self._model.get()

    def setModel(self, model: str) -> None:
        self._model.set(model)

    def getTSIds(self) -> List[str]:
        return self.getUniqueValues(TomogramEmbedding.TS_ID_FIELD)

    def copyInfo(self, other: "SetOfTomogramEmbeddings") -> None:
        self._tomogramsPointer.copy(other._tomogramsPointer)
        self._samplingRate.set(other.getSamplingRate())
        self._model.set(other.getModel())

    def __str__(self) -> str:
        rate = self.getSamplingRate() or 0.0
        return f"{self.getClassName()} ({self.getSize()} items, {rate:.2f} Å/px{self._appendStreamState()})"
