"""Protocol *simulate tomograms*: named molecules in; tomograms, their tilt series and the true coordinates out."""

import csv
import os
from collections import Counter
from typing import Any, Dict, List

from pwem.objects import AtomStruct, SetOfVolumes, Volume
from pyworkflow import BETA
from pyworkflow.object import Pointer
from pyworkflow.protocol import STEPS_PARALLEL, params
from pyworkflow.utils import cleanPath, createAbsLink, makePath
from tomo.objects import SetOfCoordinates3D, SetOfTiltSeries, SetOfTomograms, SetOfTomoMasks
from tomo.protocols import ProtTomoBase

from .. import Plugin
from ..constants import (
    OUTPUT_COORDINATES,
    OUTPUT_LABELS,
    OUTPUT_NOISE_FREE,
    OUTPUT_REFERENCES,
    OUTPUT_TILT_SERIES,
    OUTPUT_TOMOGRAMS,
)
from ..convert import Pick, box_of, new_coordinate, read_picks
from ..errors import TwinError
from ..simulated import RECORD, TRUTH, Simulated, add_tilt_series, new_labels, new_tomogram, read_simulated
from ..targets import Target, iter_references, prepare_targets
from .protocol_base import TwinProtocol
from .simulation_form import FROM_FILE, define_microscope_params, define_sample_params, validate_experiment
from .simulation_settings import settings_text

CONCENTRATION = "concentration_g_per_L"


class ProtTwinSimulateTomograms(TwinProtocol, ProtTomoBase):
    """Simulates crowded cryo-electron tomograms of molecules that you name, and knows where each one lies.

    A sample is filled with the molecules in random orientations, with membranes, filaments and gold where asked for,
    imaged as a microscope does it (CTF, radiation damage, loss with path length, detector), and reconstructed. The
    output is what real data would give, and the truth beside it: coordinates with orientations, one group of them for
    each molecule. For trying a workflow before there is data, for measuring a picker, and for training one.
    """

    _label = "simulate tomograms"
    _devStatus = BETA
    _possibleOutputs = {
        OUTPUT_TOMOGRAMS: SetOfTomograms,
        OUTPUT_TILT_SERIES: SetOfTiltSeries,
        OUTPUT_COORDINATES: SetOfCoordinates3D,
        OUTPUT_NOISE_FREE: SetOfTomograms,
        OUTPUT_LABELS: SetOfTomoMasks,
        OUTPUT_REFERENCES: SetOfVolumes,
    }
    stepsExecutionMode = STEPS_PARALLEL

    # ------------------------------ form ------------------------------
    def _defineParams(self, form: Any) -> None:
        define_sample_params(form)
        self._defineGpuParams(form)
        define_microscope_params(form)
        form.addSection(label="Outputs")
        outputs = (
            ("writeTiltSeries", True, "Tilt series?", "The aligned tilt series, for reconstructing them otherwise."),
            ("writeReferences", True, "Density maps?", "A map of each molecule, to be given as reference to a picker."),
            (
                "writeNoiseFree",
                False,
                "Noise-free tomograms?",
                "The same tomograms without noise and alignment errors.",
            ),
            (
                "writeLabels",
                False,
                "Labels?",
                "For each tomogram a mask: which molecule each voxel belongs to, as number.",
            ),
        )
        for name, default, label, text in outputs:
            form.addParam(name, params.BooleanParam, default=default, label=label, help=text)
        form.addParam(
            "prefix",
            params.StringParam,
            default="tomo",
            label="Names begin with",
            help="The tomograms' tsIds are this, _ and a number. Where several simulations of a project are to be joined, give "
            "each a beginning of its own.",
        )
        self._defineParallelParams(form)

    # ------------------------------ steps ------------------------------
    def _insertAllSteps(self) -> None:
        settings = self._digest(*self._settings(), self._lost(*self._outputFiles()))
        prepared = self._insertFunctionStep(self.prepareStep, settings, prerequisites=[], needsGPU=False)
        made = {item.getTsId(): item.getFileName() for item in getattr(self, OUTPUT_TOMOGRAMS, [])}
        steps, states = [], [settings]
        for number in range(1, self.numberOfTomograms.get() + 1):
            name = self._getName(number)
            files = [made[name], os.path.join(self._getExtraPath(name), RECORD)] if name in made else []
            own = self._digest(settings, self._lost(*files))
            step = self._insertFunctionStep(
                self.simulateStep,
                number,
                own,
                self._attempt(name),
                prerequisites=[prepared],
                needsGPU=self.usesGpu(),
            )
            steps.append(step)
            states.append(own)
        closing = (self._digest(steps, states), self._attempts())
        self._insertFunctionStep(self.createOutputStep, *closing, prerequisites=steps, needsGPU=False)

    def prepareStep(self, settings: str) -> None:
        """Write the form as a settings file, with the project's molecules as files that the engine reads."""
        if self.settingsFrom == FROM_FILE:
            return
        folder = self._getExtraPath("molecules")
        cleanPath(folder)
        makePath(folder)
        targets = []
        for reference, target in zip(self._getReferences(), prepare_targets(self._getReferences(), folder)):
            if isinstance(reference, AtomStruct):  # the engine names a molecule after its file
                linked = os.path.join(folder, target.name + model_ending(target.source))
                createAbsLink(os.path.abspath(target.source), linked)
                target = Target(target.group, target.name, linked)
            targets.append(target)
        with open(self._getSettingsFile(), "w", encoding="utf-8") as file:
            file.write(settings_text(self, targets))

    def simulateStep(self, number: int, settings: str, attempt: int) -> None:
        """Have the engine make one tomogram; what is there already, made alike, it keeps."""
        name = self._getName(number)
        try:
            folder = self._getExtraPath(name)
            record = os.path.join(folder, RECORD)
            cleanPath(record)  # written last: it tells whether this attempt went well
            args = [self._getSettingsFile(), "--out", folder, "--first", number, "--tomograms", 1]
            args += self._outputArgs() + self._engineArgs()
            Plugin.runTomotwin(self, "simulate", args, gpu=True, expected=record)
            read_simulated(folder)
            self._setFailure(name, None)
        except Exception as error:
            self._setFailure(name, error)

    def createOutputStep(self, settings: str, attempts: int) -> None:
        """Make all outputs out of the tomograms that went well; fail where none did."""
        failures = self._failures()
        names = [self._getName(number) for number in range(1, self.numberOfTomograms.get() + 1)]
        made = [read_simulated(self._getExtraPath(name)) for name in names if name not in failures]
        if not made:
            raise TwinError(f"No tomogram could be simulated: {failures[names[0]]}")
        tomograms = self._fillTomograms(made, "tomograms%s.sqlite", ".mrc")
        outputs: Dict[str, Any] = {OUTPUT_TOMOGRAMS: tomograms}
        if self.writeTiltSeries:
            series = self._createSetOfTiltSeries()
            series.setSamplingRate(made[0].pixelSize)
            series.setAcquisition(made[0].acquisition.clone())
            for one in made:
                add_tilt_series(one, series)
            outputs[OUTPUT_TILT_SERIES] = series
        if self.writeNoiseFree:
            outputs[OUTPUT_NOISE_FREE] = self._fillTomograms(made, "noisefree%s.sqlite", "_noisefree.mrc")
        if self.writeLabels:
            masks = self._createSet(SetOfTomoMasks, "labels%s.sqlite", "")
            self._fill(masks, made, [new_labels(one) for one in made])
            outputs[OUTPUT_LABELS] = masks
        if self.writeReferences:
            outputs[OUTPUT_REFERENCES] = self._newReferences(made[0])
        self._defineOutputs(**outputs)
        self._defineOutputs(**{OUTPUT_COORDINATES: self._newCoordinates(made)})
        for output in list(outputs.values()) + [getattr(self, OUTPUT_COORDINATES)]:
            for pointer in self.inputMolecules:
                if pointer.hasValue():
                    self._defineSourceRelation(pointer, output)

    # ------------------------------ outputs ------------------------------
    def _fillTomograms(self, made: List[Simulated], template: str, ending: str) -> SetOfTomograms:
        tomograms = self._createSet(SetOfTomograms, template, "")
        return self._fill(tomograms, made, [new_tomogram(one, ending) for one in made])

    @staticmethod
    def _fill(output: SetOfTomograms, made: List[Simulated], items: List[Any]) -> SetOfTomograms:
        output.setSamplingRate(made[0].voxelSize)
        output.setAcquisition(made[0].acquisition.clone())
        for item in items:
            output.append(item)
        return output

    def _newReferences(self, made: Simulated) -> SetOfVolumes:
        volumes = self._createSetOfVolumes()
        volumes.setSamplingRate(made.voxelSize)
        for name in made.species:
            volume = Volume(location=os.path.join(made.folder, "references", name + ".mrc"))
            volume.setSamplingRate(made.voxelSize)
            volume.setObjLabel(name)
            volumes.append(volume)
        return volumes

    def _newCoordinates(self, made: List[Simulated]) -> SetOfCoordinates3D:
        """The truth of all tomograms: one group for each molecule, in the order in which they were named."""
        truths = [read_picks(one.path(TRUTH)) for one in made]
        picks = [pick for truth in truths for pick in truth]
        names = list(made[0].species)
        names += sorted({pick.label for pick in picks} - set(names))
        groups = {name: group for group, name in enumerate(names, start=1)}
        self._writeGroupsTable(groups, picks)
        self._writeCrowdingTable(made)
        pointer = Pointer(self, extended=OUTPUT_TOMOGRAMS)
        output = self._createSetOfCoordinates3D(pointer)
        output.setSamplingRate(made[0].voxelSize)
        diameter = max((pick.diameter for pick in picks), default=0.0)
        output.setBoxSize(box_of(diameter, made[0].voxelSize))
        for one, truth in zip(made, truths):
            tomogram = new_tomogram(one)
            for pick in truth:
                output.append(new_coordinate(tomogram, pick._replace(score=1.0), groups[pick.label]))
        return output

    def _writeGroupsTable(self, groups: Dict[str, int], picks: List[Pick]) -> None:
        """Write what each group id stands for as a CSV file."""
        counts = Counter(pick.label for pick in picks)
        diameters = {pick.label: pick.diameter for pick in picks}
        with open(self._getGroupsFile(), "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["group_id", "target", "diameter_A", "copies"])
            for name, group in groups.items():
                writer.writerow([group, name, f"{diameters.get(name, 0):.0f}", counts[name]])

    def _writeCrowdingTable(self, made: List[Simulated]) -> None:
        """Write how crowded each tomogram became as a CSV file."""
        with open(self._getCrowdingFile(), "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["tomogram", "occupied", CONCENTRATION])
            writer.writerows([one.name, one.occupied, one.concentration] for one in made)

    # ------------------------------ info ------------------------------
    def _validate(self) -> List[str]:
        errors = self._validateGpu() + validate_experiment(self)
        prefix = self.prefix.get() or ""
        if not prefix.isidentifier() or not prefix.isascii() or "__" in prefix:
            errors.append("Names begin with: give a letter, then letters, digits and single underscores.")
        return errors

    def _summary(self) -> List[str]:
        output = getattr(self, OUTPUT_COORDINATES, None)
        if output is None or not os.path.exists(self._getGroupsFile()):
            return ["Output is not ready yet."] + self._failureSummary()
        tomograms = getattr(self, OUTPUT_TOMOGRAMS)
        size = " × ".join(str(side) for side in tomograms.getDimensions())
        summary = [
            f"*{tomograms.getSize()} tomograms* of {size} voxels, {tomograms.getSamplingRate():g} Å/voxel, "
            f"with *{output.getSize()} particles*",
            "Group id, molecule, diameter, copies in all:",
        ]
        with open(self._getGroupsFile(), newline="") as file:
            for row in csv.DictReader(file):
                summary.append("  *{group_id}*  {target},  {diameter_A} Å,  {copies}".format(**row))
        with open(self._getCrowdingFile(), newline="") as file:
            rows = list(csv.DictReader(file))
        taken = [100 * float(row["occupied"]) for row in rows]
        dissolved = [float(row[CONCENTRATION]) for row in rows]
        summary.append(
            f"Crowding: {min(taken):.0f} to {max(taken):.0f} % of the ice are taken, {min(dissolved):.0f} to "
            f"{max(dissolved):.0f} g/L"
        )
        return summary + self._failureSummary()

    def _methods(self) -> List[str]:
        output = getattr(self, OUTPUT_COORDINATES, None)
        if output is None:
            return []
        tomograms = getattr(self, OUTPUT_TOMOGRAMS)
        acquisition = tomograms.getAcquisition()
        return [
            f"{tomograms.getSize()} tomograms with {output.getSize()} particles were simulated at "
            f"{tomograms.getSamplingRate():g} Å/voxel (tilts from {acquisition.getAngleMin():g} to "
            f"{acquisition.getAngleMax():g} degrees, {acquisition.getAccumDose():.0f} e/Å^2, "
            f"{acquisition.getVoltage():g} kV, seed {self.seed.get()})."
        ]

    def _citations(self) -> List[str]:
        return ["Rice2023", "Grant2015", "Hagen2017"]

    # ------------------------------ helpers ------------------------------
    def _getName(self, number: int) -> str:
        return f"{self.prefix.get()}_{number:02d}"

    def _getReferences(self) -> List[Any]:
        return list(iter_references(self.inputMolecules))

    def _getSettingsFile(self) -> str:
        if self.settingsFrom == FROM_FILE:
            return os.path.abspath(self.settingsFile.get())
        return self._getExtraPath("experiment.toml")

    def _getGroupsFile(self) -> str:
        return self._getExtraPath("groups.csv")

    def _getCrowdingFile(self) -> str:
        return self._getExtraPath("crowding.csv")

    def _outputArgs(self) -> List[Any]:
        """Options of ``tomotwin simulate`` beside the settings file; the mdoc of the tilt series is always needed."""
        switches = {
            "--references": self.writeReferences,
            "--noise-free": self.writeNoiseFree,
            "--labels": self.writeLabels,
        }
        args = ["--prefix", self.prefix.get(), "--seed", self.seed.get(), "--tilt-series"]
        return args + [option for option, asked in switches.items() if asked]

    def _settings(self) -> List[Any]:
        """Everything that a tomogram depends on."""
        if self.settingsFrom == FROM_FILE:
            with open(self.settingsFile.get()) as file:
                return [file.read(), self._outputArgs()]
        references = [(item.getFileName(), item.getAttributeValue("_samplingRate")) for item in self._getReferences()]
        return [settings_text(self, []), references, self._outputArgs()]


def model_ending(path: str) -> str:
    """The ending of an atomic model's file, with .gz where it is compressed."""
    stem, ending = os.path.splitext(path)
    return os.path.splitext(stem)[1] + ending if ending.lower() == ".gz" else ending
