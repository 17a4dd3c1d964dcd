"""Protocol *reference picking*: embedded tomograms and named targets in, coordinates out."""

import os
import shutil
from typing import Any, Iterable, List, Set

from pyworkflow import BETA
from pyworkflow.protocol import params
from pyworkflow.utils import cleanPath, makePath
from tomo.objects import SetOfCoordinates3D

from .. import Plugin
from ..constants import OUTPUT_COORDINATES, RELEASED_MODEL
from ..enabled import enabled_items, ts_ids
from ..objects import SetOfTomogramEmbeddings
from ..targets import add_examples, add_identifiers, iter_references, prepare_targets, write_targets
from .model_choice import validate_model_file
from .picking_form import (
    define_target_params,
    define_threshold_params,
    define_verification_params,
    names_targets,
    validate_picking,
    warn_of_picking,
)
from .picking_steps import ALL, TwinPickingProtocol
from .reference_simulation import define_simulation_params, simulation_args, validate_simulation_params
from .refinement import (
    REFERENCES_FILE,
    accepted_picks,
    all_picks,
    define_refinement_params,
    refine_args,
    refinement_settings,
    run_of_picks,
    validate_refinement_params,
)
from .region_form import define_region_params, region_settings, validate_region_params, warn_of_region_params
from .single_outputs import define_single_outputs
from .streaming import file_stamp

REFERENCES, REFINED = "references", "refined"
"""Stages of the work of the whole run, before all tomograms."""


class ProtTwinReferencePicking(TwinPickingProtocol):
    """Finds targets that you name in embedded tomograms.

    A target is a density map, an atomic model, a set of subtomograms or a few example positions. Maps and models are
    turned into what they would look like in your tomograms, in many orientations, and embedded with the same network
    as the tomograms; every place whose embedding is close to a target's is a candidate. No training is needed.

    The output holds the picks of all targets: the group id of a coordinate says which target it is (see the
    summary). Targets that have a density are verified by matching: their picks carry orientations, and their score is the
    correlation with the density, from 0 to 1; that of others is the similarity of embeddings. _tomotwinFDR is the share of
    false picks to be expected among those of its target that score at least as much. On request each target is an output of
    its own, too. References can be refitted to picks that you accept and reject.

    Tomograms are searched as soon as they are embedded; *Continue* searches only what is new, missing, or set otherwise.
    """

    _label = "reference picking"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_COORDINATES: SetOfCoordinates3D}

    # ------------------------------ form ------------------------------
    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Input")
        self._defineGpuParams(form)
        form.addParam(
            "inputEmbeddings",
            params.PointerParam,
            pointerClass="SetOfTomogramEmbeddings",
            important=True,
            label="Embedded tomograms",
            help="Output of the protocol *embed tomograms*.",
        )
        define_target_params(form)
        define_verification_params(form)
        define_threshold_params(form)
        define_region_params(form, found=False)
        define_refinement_params(form)
        define_simulation_params(form)
        self._defineParallelParams(form)

    # ------------------------------ steps ------------------------------
    def _isReady(self, tsIds: Iterable[str]) -> bool:
        """References made of positions in some tomograms wait for these."""
        return self._tomogramsOfPositions() <= set(tsIds)

    def _insertFirstSteps(self) -> List[int]:
        made = self._insertFunctionStep(self.referencesStep, self._run, prerequisites=[], needsGPU=self.usesGpu())
        return [self._insertFunctionStep(self.refineStep, self._run, prerequisites=[made], needsGPU=False)]

    def referencesStep(self, run: str) -> None:
        """Make one file of reference embeddings out of everything the user gave, or take that of the run to refine."""
        made, digest = self._getMadeReferences(), self._digest(*self._targetSettings())
        if self._isDone(REFERENCES, ALL, digest) and os.path.exists(made) and os.path.exists(self._getTargetsFile()):
            return
        cleanPath(made)
        self._setDone(REFERENCES, ALL, None)
        if names_targets(self):
            self._makeReferences(made)
        else:
            for source, copy in zip(run_of_picks(all_picks(self)), (made, self._getTargetsFile())):
                shutil.copyfile(source, copy)
        self._setDone(REFERENCES, ALL, digest)

    def _makeReferences(self, made: str) -> None:
        embeddings: SetOfTomogramEmbeddings = self.inputEmbeddings.get()
        folder = self._getExtraPath("references")
        cleanPath(folder)
        makePath(folder)
        targets = prepare_targets(iter_references(self.inputReferences), folder)
        add_identifiers(self.identifiers.get(), targets)
        zarrs = {item.getTsId(): item.getFileName() for item in enabled_items(embeddings)}
        examples = [pointer.get() for pointer in self.inputExamples]
        tsIds = add_examples(examples, targets, folder, embeddings.getSamplingRate(), zarrs, self.examplesByGroup.get())
        write_targets(targets, self._getTargetsFile())
        args: List[Any] = [f"{target.name}={target.source}" for target in targets]
        args += [word for tsId in tsIds for word in ("--embedding", zarrs[tsId])]
        args += ["--out", made, "--model", embeddings.getModel()] + self._referenceArgs() + self._engineArgs()
        Plugin.runTomotwin(self, "reference", args, gpu=True, expected=made)

    def refineStep(self, run: str) -> None:
        """Refit the references to accepted and rejected picks where there are some."""
        made, references = self._getMadeReferences(), self._getReferencesFile()
        digest = self._digest(*self._targetSettings(), *refinement_settings(self), file_stamp(made))
        if self._isDone(REFINED, ALL, digest) and os.path.exists(references):
            return
        cleanPath(references)
        self._setDone(REFINED, ALL, None)
        if accepted_picks(self) is None:
            shutil.copyfile(made, references)
        else:
            folder = self._getExtraPath("decisions")
            cleanPath(folder)
            makePath(folder)
            args = refine_args(self, self.inputEmbeddings.get(), folder)
            args += ["--references", made, "--out", references]
            Plugin.runTomotwin(self, "refine", args, expected=references)
        self._setDone(REFINED, ALL, digest)

    def _close(self) -> None:
        """Close the picks of all targets, and make outputs of each where they are wanted."""
        self._closePicks()
        if self.outputEach:
            define_single_outputs(self, self._getTargets(), self._getReferencesFile())

    # ------------------------------ info ------------------------------
    def _validate(self) -> List[str]:
        embeddings: SetOfTomogramEmbeddings = self.inputEmbeddings.get()
        errors = self._validateGpu() + self._validateEmbeddings()
        if embeddings.getModel() != RELEASED_MODEL:
            errors += validate_model_file(embeddings.getModel())
        tsIds = set(ts_ids(embeddings))
        if embeddings.isStreamOpen():
            tsIds |= self._tomogramsOfPositions()  # they may still come
        unsuitable = validate_picking(self, tsIds)
        errors += unsuitable or validate_refinement_params(self, tsIds, names_targets(self))
        errors += validate_region_params(self, embeddings.getTomograms())
        return errors + validate_simulation_params(self, embeddings.getTomograms().getFirstItem())

    def _warnings(self) -> List[str]:
        warnings = warn_of_picking(self) + warn_of_region_params(self, ts_ids(self.inputEmbeddings.get()))
        if accepted_picks(self) is not None and self.verify:
            warnings.append(
                "Accepted and rejected picks move what is proposed, not what verification makes of it: where they are to count, "
                "say *No* to *Verify the picks?*"
            )
        return warnings

    def _remarks(self) -> List[str]:
        refitted = accepted_picks(self) is not None
        return ["References were refitted to accepted and rejected picks."] if refitted else []

    def _methods(self) -> List[str]:
        methods = super()._methods()
        if methods and accepted_picks(self) is not None:
            methods[0] += " The references were refitted to picks accepted and rejected by hand."
        return methods

    def _citations(self) -> List[str]:
        return ["Rice2023"]

    # ------------------------------ helpers ------------------------------
    def _getMadeReferences(self) -> str:
        """The references before they are refitted."""
        return self._getExtraPath("made_" + REFERENCES_FILE)

    def _referenceArgs(self) -> List[str]:
        """Options of ``tomotwin reference`` that change its result."""
        tomogram = self.inputEmbeddings.get().getTomograms().getFirstItem()
        diameter = ["--diameter", f"{self.diameter.get():g}"] if self.diameter.get() > 0 else []
        alone = [] if self.calibrateExamples else ["--no-simulation"]
        unverified = ["--no-template"] if len(self.inputExamples) and not self.verify else []
        return simulation_args(self, tomogram) + diameter + alone + unverified

    def _targetSettings(self) -> List[Any]:
        """Everything the references depend on, before they are refitted."""
        picks = all_picks(self)
        if picks is not None and not names_targets(self):
            return [picks.getFileName()]
        references = [
            (reference.getFileName(), reference.getAttributeValue("_samplingRate"))
            for reference in iter_references(self.inputReferences)
        ]
        sets = [pointer.get() for pointer in self.inputExamples]
        positions = [(examples.getFileName(), examples.getSize()) for examples in sets]
        model = self.inputEmbeddings.get().getModel()
        named = [self.identifiers.get(), self.examplesByGroup.get()]
        return [model, references, positions, named, self._referenceArgs()]

    def _searchSettings(self) -> List[Any]:
        """Everything the candidates depend on."""
        return self._targetSettings() + [
            refinement_settings(self),
            region_settings(self),
            self.writeMaps.get(),
            self.verify.get(),
        ]

    def _locateArgs(self) -> List[str]:
        return [] if self.verify else ["--no-verification"]

    def _tomogramsOfPositions(self) -> Set[str]:
        """Tomograms in which positions are given that the references are made of or refitted to."""
        sets = [pointer.get() for pointer in self.inputExamples] + [accepted_picks(self), all_picks(self)]
        return {tsId for coordinates in sets if coordinates is not None for tsId in ts_ids(coordinates)}
