"""Protocol *train model*: molecules, or positions in tomograms, in; a model that embedding takes out."""

import os
from typing import Any, Dict, List

from pwem.objects import AtomStruct
from pyworkflow import BETA
from pyworkflow.protocol import STEPS_PARALLEL
from pyworkflow.utils import cleanPath, createAbsLink, makePath
from tomo.objects import Tomogram
from tomo.protocols import ProtTomoBase

from .. import Plugin
from ..constants import CONTRASTS, OUTPUT_MODEL
from ..convert import link_tomogram
from ..enabled import enabled_items
from ..objects import TomoTwinModel
from ..targets import Target, add_examples, iter_references, prepare_targets, read_targets, write_targets
from ..trained import GROUPS, chosen_file, read_card, read_curves
from .positions_form import other_tomograms
from .protocol_base import TwinProtocol
from .protocol_simulate_tomograms import model_ending
from .training_checks import validate_training
from .training_form import (
    ADAPT,
    LIBRARY_FILE,
    LIBRARY_OWN,
    SIMULATED,
    TOMOGRAMS,
    adapting_args,
    define_data_params,
    define_training_params,
    training_args,
)


class ProtTwinTrainModel(TwinProtocol, ProtTomoBase):
    """Trains the network, or adapts it to a particle.

    Most users never need this: the released model tells molecules apart that it has not seen. Where a target is found
    badly, adapting the model to it from a few tens of its positions takes minutes on a CPU. A new general model is trained on
    tomograms that are simulated while it learns, of the released library of molecules or of your own, or on your
    tomograms. The output is a model that the protocol *embed tomograms* takes, and with it picking.

    A run that was stopped goes on from its last checkpoint with *Continue*.
    """

    _label = "train model"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_MODEL: TomoTwinModel}
    stepsExecutionMode = STEPS_PARALLEL  # else the form has no place for the program's threads

    # ------------------------------ form ------------------------------
    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Input")
        self._defineGpuParams(form)
        define_data_params(form)
        define_training_params(form)
        form.addParallelSection(
            threads=1,
            mpi=0,
            binThreads=4,
            binThreadsHelp="*Threads*:\nCPU threads of the program itself. When only the CPU computes, give as many as the "
            "machine has cores, less the simulating processes.",
        )

    # ------------------------------ steps ------------------------------
    def _insertAllSteps(self) -> None:
        made = self._getAdapted() if self.task == ADAPT else chosen_file(self._getTrainingFolder())
        data = self._digest(*self._dataSettings(), self._lost(made))
        self._insertFunctionStep(self.prepareStep, data, needsGPU=False)
        if self.task == ADAPT:
            self._insertFunctionStep(self.adaptStep, data, adapting_args(self), needsGPU=self.usesGpu())
        else:
            self._insertFunctionStep(self.trainStep, data, training_args(self), needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, data, needsGPU=False)

    def prepareStep(self, data: str) -> None:
        """Bring molecules, or tomograms and positions, to files that the engine reads."""
        if self.task == SIMULATED:
            if self.molecules == LIBRARY_OWN:
                self._buildLibrary()
            return
        # Kept, as a run that has ended may be continued with more steps.
        folders = [self._getExtraPath(name) for name in ("tomograms", "positions")]
        for folder in folders:
            cleanPath(folder)
            makePath(folder)
        tomograms = self._getTomograms()
        targets: List[Target] = []
        sets = [pointer.get() for pointer in self.inputCoordinates]
        rate = next(iter(tomograms.values())).getSamplingRate()
        used = add_examples(sets, targets, folders[1], rate, tomograms, self.byGroup.get(), self.diameter.get())
        for tsId in used:
            link_tomogram(tomograms[tsId], folders[0])
        write_targets(targets, self._getTargetsFile())

    def adaptStep(self, data: str, settings: List[Any]) -> None:
        """Have the engine adapt the model."""
        model = self._getAdapted()
        cleanPath(model)
        args = self._positionArgs() + ["--out", model] + settings + self._engineArgs()
        Plugin.runTomotwin(self, "adapt", args, gpu=True, expected=model)

    def trainStep(self, data: str, settings: List[Any]) -> None:
        """Have the engine train; it goes on from the last checkpoint where there is one."""
        args = settings + ["--out", self._getTrainingFolder()]
        if self.task == TOMOGRAMS:
            args += self._positionArgs() + ["--live-share", f"{self.liveShare.get():g}"]
        elif self.molecules == LIBRARY_OWN:
            args += ["--library", self._getLibrary()]
        elif self.molecules == LIBRARY_FILE:
            args += ["--library", os.path.abspath(self.libraryFile.get())]
        Plugin.runTomotwin(
            self, "train", args + self._engineArgs(), gpu=True, expected=chosen_file(self._getTrainingFolder())
        )

    def createOutputStep(self, data: str) -> None:
        """Register the model."""
        path = self._getAdapted() if self.task == ADAPT else chosen_file(self._getTrainingFolder())
        read_card(path)  # what is no model fails here and not when it is used
        model = TomoTwinModel(path)
        self._defineOutputs(**{OUTPUT_MODEL: model})
        pointers = list(self.inputMolecules if self.task == SIMULATED else self.inputCoordinates)
        if self.task != SIMULATED and other_tomograms(self) is not None:
            pointers.append(self.inputTomograms)
        for pointer in pointers:
            self._defineSourceRelation(pointer, model)

    # ------------------------------ info ------------------------------
    def _validate(self) -> List[str]:
        return self._validateGpu() + validate_training(self)

    def _warnings(self) -> List[str]:
        if self.task != ADAPT and not self.usesGpu():
            return ["Training without a GPU takes days rather than hours, unless it is for a trial of few steps."]
        return []

    def _summary(self) -> List[str]:
        output = getattr(self, OUTPUT_MODEL, None)
        summary = [] if output is None else [f"Model: *{output.getPath()}*"]
        if self.task == ADAPT:
            return (
                summary + self._summariseAdapted() if summary else ["Output is not ready yet."]
            ) + self._failureSummary()
        curves = read_curves(self._getTrainingFolder())
        if not curves.steps:
            return ["Output is not ready yet."] + self._failureSummary()
        summary.append(
            f"Step *{curves.steps[-1]}*: loss {curves.loss[-1]:.3f}; of {100 * curves.accuracy[-1]:.0f} % of the windows the most "
            "similar one is of the same species"
        )
        for group in GROUPS:
            medians = curves.medians(group)
            if medians:
                step, f1 = medians[-1]
                summary.append(
                    f"Median F1 of {len(curves.f1[group])} species {group} in training: *{f1:.2f}* at step {step}"
                )
        return summary + ["*Analyze Results* shows the curves."] + self._failureSummary()

    def _summariseAdapted(self) -> List[str]:
        found = read_card(self._getAdapted())["adapted"]["targets"]
        return ["Adapted to:"] + [f"  {name}: {number} positions" for name, number in found.items()]

    def _methods(self) -> List[str]:
        output = getattr(self, OUTPUT_MODEL, None)
        if output is None:
            return []
        if self.task == ADAPT:
            found = read_card(self._getAdapted())["adapted"]["targets"]
            targets = ", ".join(f"{name} ({number} positions)" for name, number in found.items())
            return [f"A TomoTwin model was adapted to {targets}, while it kept its embeddings of simulated tomograms."]
        steps = read_curves(self._getTrainingFolder()).steps[-1]
        on = "simulated tomograms" if self.task == SIMULATED else "tomograms with listed particles"
        start = "a trained model" if self.fromModel else "random weights"
        return [f"A TomoTwin model was trained on {on} for {steps} steps, from {start} (seed {self.seed.get()})."]

    def _citations(self) -> List[str]:
        return ["Rice2023"]

    # ------------------------------ helpers ------------------------------
    def _getTrainingFolder(self) -> str:
        return self._getExtraPath("training")

    def _getAdapted(self) -> str:
        return self._getExtraPath("adapted.safetensors")

    def _getLibrary(self) -> str:
        return self._getExtraPath("library.npz")

    def _getTargetsFile(self) -> str:
        return self._getExtraPath("targets.json")

    def _getTomograms(self) -> Dict[str, Tomogram]:
        """The tomograms by tsId: those given, or those in which the positions were picked."""
        given = other_tomograms(self)
        sets = [given] if given is not None else [pointer.get().getPrecedents() for pointer in self.inputCoordinates]
        return {item.getTsId(): item.clone() for tomograms in sets for item in enabled_items(tomograms)}

    def _positionArgs(self) -> List[Any]:
        """Tomograms and positions, for ``tomotwin train`` and ``tomotwin adapt``."""
        folder = self._getExtraPath("tomograms")
        rate = next(iter(self._getTomograms().values())).getSamplingRate()
        args = ["--tomograms"] + [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        args += ["--positions"] + [target.source for target in read_targets(self._getTargetsFile())]
        args += ["--voxel-size", f"{rate:g}"]
        args += ["--all-listed"] if self.allListed else []
        return args + (["--bright"] if CONTRASTS[self.contrast.get()] == "bright" else [])

    def _buildLibrary(self) -> None:
        folder, library = self._getExtraPath("molecules"), self._getLibrary()
        cleanPath(folder, library)
        makePath(folder)
        references = list(iter_references(self.inputMolecules))
        for reference, target in zip(references, prepare_targets(references, folder)):
            if isinstance(reference, AtomStruct):  # the engine reads one folder, and names a molecule after its file
                linked = os.path.join(folder, target.name + model_ending(target.source))
                createAbsLink(os.path.abspath(target.source), linked)
        args = ["build", folder, "--out", library, "--held-out", self.heldOut.get(), "--seed", self.seed.get()]
        Plugin.runTomotwin(self, "library", args, expected=library)

    def _dataSettings(self) -> List[Any]:
        """Everything that is learned from."""
        if self.task == SIMULATED:
            references = [
                (reference.getFileName(), reference.getAttributeValue("_samplingRate"))
                for reference in iter_references(self.inputMolecules)
            ]
            return [self.molecules.get(), references, self.heldOut.get(), self.libraryFile.get()]
        sets = [pointer.get() for pointer in self.inputCoordinates]
        positions = [(coordinates.getFileName(), coordinates.getSize()) for coordinates in sets]
        tomograms = sorted((tsId, item.getFileName()) for tsId, item in self._getTomograms().items())
        choices = [self.byGroup.get(), self.diameter.get(), self.allListed.get(), self.contrast.get()]
        return [positions, tomograms, choices, self.liveShare.get()]
