"""Protocol *cluster picking*: embedded tomograms in, what recurs in them out, as coordinates of each species."""

import os
from typing import Any, Iterable, List, Optional

from pyworkflow import BETA
from pyworkflow.protocol import params
from pyworkflow.utils import cleanPath, makePath
from tomo.objects import AverageSubTomogram, SetOfAverageSubTomograms, SetOfCoordinates3D, Tomogram

from tomotwin_view.cluster_files import (
    CANDIDATES_FILE,
    CLUSTERS_FILE,
    SELECTION_FILE,
    read_clusters_file,
    write_selection,
)

from .. import Plugin
from ..clusters import Selection, parse_clusters, selection_of, selection_of_file, targets_of
from ..constants import OUTPUT_AVERAGES, OUTPUT_COORDINATES
from ..convert import header_voxel_size, link_tomogram
from ..enabled import enabled_items, ts_ids
from ..errors import TwinError
from ..targets import read_groups, read_measured, write_targets
from .cluster_form import (
    ALL_SPECIES,
    FROM_FILE,
    IN_WINDOW,
    NAMED,
    define_cluster_params,
    define_finding_params,
    validate_clusters,
)
from .picking_form import define_threshold_params, validate_threshold
from .picking_report import Row, read_rows
from .picking_steps import ALL, TwinPickingProtocol
from .refinement import REFERENCES_FILE
from .region_form import define_region_params, region_settings, validate_region_params, warn_of_region_params
from .single_outputs import define_single_outputs
from .streaming import file_stamp

CLUSTERED, CHOSEN = "clustered", "chosen"
"""Stages of the work of the whole run, before all tomograms."""

MOST_CLUSTERS_SHOWN = 30


class ProtTwinClusterPicking(TwinPickingProtocol):
    """Finds what recurs in embedded tomograms, without any reference.

    Places where something is are clustered by their embeddings, in all tomograms together. Clusters that look like a
    macromolecule are proposed as species, each with its number, size, an average, and what it looks most like; membranes,
    filaments, gold, ice and edges are told apart. Each cluster then becomes a reference, and every copy of it is looked for.

    Each species that is picked is an output of its own, and output3DCoordinates holds all of them, the group id of a
    coordinate saying which it is (see the summary). *Analyze Results* shows the clusters in a window, where they can be named,
    merged, discarded and drawn. All tomograms must be embedded before this begins.
    """

    _label = "cluster picking"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_COORDINATES: SetOfCoordinates3D, OUTPUT_AVERAGES: SetOfAverageSubTomograms}

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
            help="Output of the protocol *embed tomograms*. Three or more tomograms of one kind of specimen together show "
            "more than one alone: what is rare in each recurs in all.",
        )
        define_cluster_params(form)
        define_threshold_params(form, rates=False)
        define_finding_params(form)
        define_region_params(form, found=False)
        self._defineParallelParams(form)

    # ------------------------------ steps ------------------------------
    def _getOutputName(self) -> str:
        return OUTPUT_COORDINATES

    def _isReady(self, tsIds: Iterable[str]) -> bool:
        """Clusters are those of all tomograms together."""
        return False

    def _insertFirstSteps(self) -> List[int]:
        made = self._insertFunctionStep(self.clusterStep, self._run, prerequisites=[], needsGPU=self.usesGpu())
        return [self._insertFunctionStep(self.chooseStep, self._run, prerequisites=[made], needsGPU=self.usesGpu())]

    def clusterStep(self, run: str) -> None:
        """Cluster all tomograms together, and where it is wanted what that leaves over."""
        digest, folder = self._digest(*self._clusterSettings()), self._getClustersFolder()
        if not (self._isDone(CLUSTERED, ALL, digest) and self._isThere(folder)):
            self._setDone(CLUSTERED, ALL, None)
            cleanPath(folder, self._getLeftoversFolder())
            zarrs = [item.getFileName() for item in self._sortedEmbeddings()]
            tomograms = ["--tomograms", *self._linkTomograms()]
            self._runCluster([*zarrs, *tomograms], folder)
            self._setDone(CLUSTERED, ALL, digest)
        rare = self._getLeftoversFolder()
        if self._wantsLeftovers() and not self._isThere(rare):
            cleanPath(rare)
            self._runCluster([folder, "--leftover"], rare)

    def chooseStep(self, run: str) -> None:
        """Make references of the clusters that are picked."""
        chosen = self._getChosenFolder()
        digest = self._digest(*self._choiceSettings())
        if self._isDone(CHOSEN, ALL, digest) and self._isChosen(chosen):
            return
        self._setDone(CHOSEN, ALL, None)
        cleanPath(self._getSelectionFile())
        if not self._isAsProposed():
            selection = self._getSelection()
            cleanPath(chosen)
            write_targets([], self._getTargetsFile())
            if selection:
                write_selection(self._getSelectionFile(), selection)
                self._runCluster([self._getClustersFolder(), "--selection", self._getSelectionFile()], chosen)
                self._requireReferences(selection)
        groups = {name: group for group, name in read_groups(self._getGroupsFile())[0].items()}
        write_targets(targets_of(chosen, self._getReferencesFile(), groups), self._getTargetsFile())
        self._setDone(CHOSEN, ALL, digest)

    def _close(self) -> None:
        """Close the coordinates of all clusters, and make outputs of each and of their averages."""
        if not self._getTargets():
            return
        self._closePicks()
        define_single_outputs(self, self._getTargets(), self._getReferencesFile())
        averages = self._createAverages()
        if averages is not None:
            averages.write()
            self._defineOutputs(**{OUTPUT_AVERAGES: averages})
            self._defineSourceRelation(self.inputEmbeddings, averages)

    def _createAverages(self) -> Optional[SetOfAverageSubTomograms]:
        """The averages of the clusters that are picked, in the order of the groups; None where there are none."""
        folder = self._getChosenFolder()
        paths = {item["name"]: item.get("average") for item in read_clusters_file(folder)["clusters"]}
        output = SetOfAverageSubTomograms.create(self._getPath(), suffix=OUTPUT_AVERAGES)
        for target in self._getTargets():
            path = os.path.join(folder, paths[target.name]) if paths.get(target.name) else ""
            if os.path.exists(path):
                average = AverageSubTomogram()
                average.setFileName(path)
                average.setSamplingRate(header_voxel_size(path))
                average.setObjLabel(target.name)
                average.setClassId(target.group)
                output.setSamplingRate(average.getSamplingRate())
                output.append(average)
        return output if output.getSize() else None

    # ------------------------------ info ------------------------------
    def _validate(self) -> List[str]:
        errors = self._validateGpu() + self._validateEmbeddings()
        errors += validate_clusters(self, self._getWindowsFile()) + validate_threshold(self)
        return errors + validate_region_params(self, self.inputEmbeddings.get().getTomograms())

    def _warnings(self) -> List[str]:
        return warn_of_region_params(self, ts_ids(self.inputEmbeddings.get()))

    def _summary(self) -> List[str]:
        folder = self._getClustersFolder()
        if not self._isThere(folder):
            return ["Output is not ready yet."] + self._failureSummary()
        found = self._describe("Clusters", folder)
        if self._wantsLeftovers() and self._isThere(self._getLeftoversFolder()):
            found += self._describe("Among what is left over (called rare_01 and so on)", self._getLeftoversFolder())
        hasNone = os.path.exists(self._getTargetsFile()) and not self._getTargets()
        return found + (self._failureSummary() if hasNone else super()._summary())

    def _methods(self) -> List[str]:
        methods = super()._methods()
        if methods:
            count = len(read_clusters_file(self._getClustersFolder())["clusters"])
            methods.insert(
                0,
                f"Places of the tomograms where something stands out were clustered by their TomoTwin embeddings, which gave "
                f"{count} clusters; {len(self._getTargets())} of them were taken as targets.",
            )
        return methods

    def _citations(self) -> List[str]:
        return ["Rice2023", "McInnes2018", "Ioffe2006"]

    def _describe(self, title: str, folder: str) -> List[str]:
        """The verdict, and a line for each cluster in a folder."""
        content = read_clusters_file(folder)
        lines = [f"*{title}:* {content.get('verdict', '')}"]
        clusters = content["clusters"]
        for item in clusters[:MOST_CLUSTERS_SHOWN]:
            nearest = "".join(f",  most like {one['name']} ({one['score']:.2f})" for one in item["nearest"][:1])
            size = f"{item['diameter_A']:.0f} Å" if item.get("diameter_A") else "size not known"
            sure = (
                f",  certainty {item['certainty']:.2f}" if item["kind"] == "species" and item.get("certainty") else ""
            )
            lines.append(f"  *{item['name']}*  {item['kind']}{sure},  {item['count']} places,  {size}{nearest}")
        if len(clusters) > MOST_CLUSTERS_SHOWN:
            lines.append(f"  and {len(clusters) - MOST_CLUSTERS_SHOWN} more, in {os.path.join(folder, 'clusters.csv')}")
        return lines

    # ------------------------------ helpers ------------------------------
    def _getClustersFolder(self) -> str:
        return self._getExtraPath("clusters")

    def _getLeftoversFolder(self) -> str:
        return self._getExtraPath("leftovers")

    def _getChosenFolder(self) -> str:
        """Where the clusters are that are picked: those proposed, unless others were chosen."""
        return self._getClustersFolder() if self._isAsProposed() else self._getExtraPath("chosen")

    def _getReferencesFile(self) -> str:
        return os.path.join(self._getChosenFolder(), REFERENCES_FILE)

    def _getWindowsFile(self) -> str:
        """Where the window saves what was chosen in it; gone when clusters are looked for anew, whose numbers are others."""
        return os.path.join(self._getClustersFolder(), SELECTION_FILE)

    def _getSelectionFile(self) -> str:
        """What is picked."""
        return self._getExtraPath(SELECTION_FILE)

    def _isThere(self, folder: str) -> bool:
        """Whether a folder of clusters is whole: with the file that the engine writes last, and those that it names."""
        if not os.path.exists(os.path.join(folder, CLUSTERS_FILE)):
            return False
        averages = [item.get("average") for item in read_clusters_file(folder)["clusters"]]
        named = [CANDIDATES_FILE, *(average for average in averages if average)]
        return all(os.path.exists(os.path.join(folder, name)) for name in named)

    def _isChosen(self, folder: str) -> bool:
        """Whether what is picked is on disk, be it nothing."""
        if not os.path.exists(self._getTargetsFile()):
            return False
        return not self._getTargets() or (self._isThere(folder) and os.path.exists(self._getReferencesFile()))

    def _isAsProposed(self) -> bool:
        return self.chosen == ALL_SPECIES and not self.leftovers

    def _wantsLeftovers(self) -> bool:
        return bool(self.leftovers) and self.chosen.get() in (ALL_SPECIES, NAMED)

    def _getSelection(self) -> Selection:
        """What is picked; nothing where there are no species to pick."""
        folder = self._getClustersFolder()
        rare = self._getLeftoversFolder() if self._wantsLeftovers() else None
        try:
            if self.chosen == NAMED:
                return selection_of(folder, rare, parse_clusters(self.named.get()))
            if self.chosen == IN_WINDOW:
                return selection_of_file(self._getWindowsFile(), folder)
            if self.chosen == FROM_FILE:
                return selection_of_file(self.selectionFile.get(), folder)
            return selection_of(folder, rare, None)
        except (OSError, ValueError) as error:
            raise TwinError(f"Clusters to pick: {str(error).rstrip('.')}.") from error

    def _requireReferences(self, selection: Selection) -> None:
        missing = {entry["name"] for entry in selection} - set(read_measured(self._getReferencesFile()))
        if missing:
            kinds = {item["name"]: item["kind"] for item in read_clusters_file(self._getChosenFolder())["clusters"]}
            named = ", ".join(f"{name} ({kinds.get(name, 'gone')})" for name in sorted(missing))
            raise TwinError(f"No reference was made of {named}: choose clusters that are species.")

    def _runCluster(self, words: List[Any], folder: str) -> None:
        args = [*words, "--out", folder, *self._findingArgs(), *self._engineArgs()]
        Plugin.runTomotwin(self, "cluster", args, gpu=True, expected=os.path.join(folder, CLUSTERS_FILE))

    def _findingArgs(self) -> List[Any]:
        """Options of ``tomotwin cluster`` that change its result."""
        model = self.inputEmbeddings.get().getModel()
        numbers = ["--fewest", self.fewest.get(), "--salience", f"{self.salience.get():g}", "--seed", self.seed.get()]
        return ["--model", model, *numbers] + ([] if self.library else ["--no-library"])

    def _sortedEmbeddings(self) -> List[Any]:
        with self._lock:
            items = [item.clone() for item in enabled_items(self.inputEmbeddings.get())]
        return sorted(items, key=lambda item: item.getTsId())

    def _linkTomograms(self) -> List[str]:
        """The tomograms under their tsIds, kept with the run: averages are made of them."""
        folder = self._getExtraPath("tomograms")
        makePath(folder)
        tomograms = self.inputEmbeddings.get().getTomograms()
        tsIds = [item.getTsId() for item in self._sortedEmbeddings()]
        return [link_tomogram(tomograms[{Tomogram.TS_ID_FIELD: tsId}], folder) for tsId in tsIds]

    def _clusterSettings(self) -> List[Any]:
        """Everything the clusters depend on."""
        return [self._findingArgs(), [file_stamp(item.getFileName()) for item in self._sortedEmbeddings()]]

    def _choiceSettings(self) -> List[Any]:
        """Everything the references depend on."""
        choice = [self.chosen.get(), self._wantsLeftovers()]
        if self.chosen == NAMED:
            choice.append(self.named.get())
        if self.chosen.get() in (IN_WINDOW, FROM_FILE):
            path = self._getWindowsFile() if self.chosen == IN_WINDOW else self.selectionFile.get()
            choice.append(file_stamp(path or ""))
        return self._clusterSettings() + choice

    def _furtherGroups(self) -> List[Row]:
        """Groups of clusters that were picked before, or chosen in the window: their outputs are still there."""
        names = {target.name for target in self._getTargets()}
        rows = read_rows(self._getGroupsFile()) if os.path.exists(self._getGroupsFile()) else []
        return [row for row in rows if row["target"] not in names]

    def _searchSettings(self) -> List[Any]:
        return self._choiceSettings() + [region_settings(self), self.writeMaps.get()]
