"""Protocols that take tomograms as they arrive, and on *Continue* do only what is missing.

**As they arrive.** While the input is open, new tomograms are looked for every few seconds. Each gets its own chain of
steps at once, its results are appended to the open output, and what follows in the workflow can begin. A last step waits
until the input is closed and all chains are through, and closes the output. Scipion's `ProtStreamingBase` looks for new
items in a step that keeps one thread busy for as long as the input is open, and the steps that it adds may start before
they are stored, without a place of their own on a GPU. So here the executor's own check does it, between two steps.

**What is missing.** Scipion skips a finished step where the run before had the same one at the same place of its list.
With tomograms that arrive in any order there is no such place. So what is done is kept in a file: for each stage of the
work and each tomogram a digest of everything that the result depends on. What has another digest, or none since it
failed or was killed, is done again; the steps of each start differ from all before, so Scipion itself skips none. So is
what somebody has deleted from the disk since.

**Continued together.** Where a whole workflow is continued, this run may begin before the one that it takes tomograms from
has opened its output again. So the input counts as open while that run is at work, an output is opened as soon as there is
something to do, and before the output is closed the input is looked at once more.
"""

import json
import os
import sqlite3
import time
from datetime import datetime
from typing import Any, Dict, Iterable, List, Optional, Tuple

import psutil
from pwem.objects import EMObject, EMSet
from pyworkflow.object import Pointer, Set
from pyworkflow.protocol import (
    STATUS_LAUNCHED,
    STATUS_NEW,
    STATUS_RUNNING,
    STEPS_PARALLEL,
    Protocol,
    getProtocolFromDb,
)
from pyworkflow.utils import getHostFullName
from tomo.objects import Tomogram

from ..enabled import ts_ids
from ..errors import TwinError
from .protocol_base import TwinProtocol

DONE_FILE = "done.json"
LAUNCH_PATIENCE_S = 60
"""So long a run that is launched has time to begin; then nobody waits for it any more."""
OUTPUT = "output"
"""The last stage of each tomogram: its results are in the output."""


class TwinStreamingProtocol(TwinProtocol):
    """Base of protocols that work on one tomogram after the other; it is not shown in Scipion's tree, having no label."""

    stepsExecutionMode = STEPS_PARALLEL

    # ------------------------------ what a protocol says ------------------------------
    _streamInput = "inputTomograms"
    """The parameter with the set whose items are taken as they arrive; it has `getTSIds`."""

    _tsIdField = Tomogram.TS_ID_FIELD
    """The attribute of the output's items that names their tomogram."""

    _isNothing = ""
    """What the run fails with where the output is empty; the reasons follow."""

    def _outputDigest(self, tsId: str) -> str:
        """Digest of everything that the results of one tomogram depend on."""
        raise NotImplementedError

    def _insertTomogramSteps(self, tsId: str, prerequisites: List[int]) -> int:
        """Insert the steps of one tomogram; returns the number of the last."""
        raise NotImplementedError

    def _createOutput(self) -> EMSet:
        """The output, empty."""
        raise NotImplementedError

    def _outputItems(self, tsId: str) -> Iterable[EMObject]:
        """The output's items of one tomogram, which did not fail."""
        raise NotImplementedError

    def _filesOf(self, tsId: str) -> List[str]:
        """Files and folders of one tomogram that whoever takes the output wants to find."""
        return []

    def _finishOutput(self, output: EMSet) -> None:
        """Put in what is only known at the end."""

    def _insertFirstSteps(self) -> List[int]:
        """Insert what comes before all tomograms; returns the numbers of the steps they wait for."""
        return []

    def _isReady(self, tsIds: Iterable[str]) -> bool:
        """Whether the work can begin with the tomograms that are there while others may still come."""
        return True

    # ------------------------------ steps ------------------------------
    def _insertAllSteps(self) -> None:
        self._run = str(datetime.now())
        self._inserted: set = set()
        self._skipped: set = set()
        self._first: Optional[List[int]] = None
        self._here: List[str] = []
        self._began = time.monotonic()
        self._insertClosing()
        self._insertArrived()
        if self._hasOutput() and (self._isStreaming() or self._inserted - self._skipped):
            output = self._openOutput()
            output.write()
            self._store(output)

    def _insertClosing(self) -> None:
        number = self._insertFunctionStep(self.closeOutputStep, self._run, prerequisites=[], wait=True, needsGPU=False)
        self._closing = self._steps[number - 1]

    def _stepsCheck(self) -> None:
        """Called by the executor every few seconds."""
        if self._isStreaming():
            self._insertArrived()
        if self._newSteps:
            self.updateSteps()

    def _insertArrived(self) -> None:
        """Insert the steps of tomograms that are new; once no more can come let the closing step follow them."""
        with self._lock:
            try:
                tsIds, isOpen = self._arrived()
            except sqlite3.Error as error:  # the set is being written; the next check comes in seconds
                self.info(f"The input cannot be read at the moment ({error}).")
                return
            self._here = tsIds
            if isOpen and not (tsIds and self._isReady(tsIds)):
                return
            if self._first is None and tsIds:
                self._first = self._insertFirstSteps()
            for tsId in sorted(set(tsIds) - self._inserted):
                self._inserted.add(tsId)
                if self._isDone(OUTPUT, tsId, self._outputDigest(tsId)) and self._hasResults(tsId):
                    self._skipped.add(tsId)
                else:
                    self._closing.addPrerequisites(self._insertTomogramSteps(tsId, self._first or []))
            if not isOpen:
                self._closing.addPrerequisites(*(self._first or []))
                self._closing.setStatus(STATUS_NEW)

    def _isStreaming(self) -> bool:
        """Whether more tomograms may come."""
        return self._closing.isWaiting()

    def _arrived(self) -> Tuple[List[str], bool]:
        """The tomograms that are there, and whether more may come."""
        items = getattr(self, self._streamInput).get()
        items.loadProperty("_streamState")  # as its file has it: the project may know an older state
        isOpen = items.isStreamOpen() or self._isProducing()  # before the items: none that came last is missed
        return ts_ids(items), isOpen

    def _isProducing(self) -> bool:
        """Whether the run that the input comes from is at work, or about to begin."""
        producer = getattr(self, self._streamInput).getObjValue()
        if not isinstance(producer, Protocol) or not os.path.exists(producer.getDbPath()):
            return False
        try:
            producer = getProtocolFromDb(os.getcwd(), producer.getDbPath(), producer.getObjId())
        except Exception as error:  # it is being written, or was made by another version
            self.info(f"The state of the run before cannot be read at the moment ({error}).")
            return False
        if producer.getStatus() == STATUS_LAUNCHED:  # it will be running in seconds, or never
            return time.monotonic() - self._began < LAUNCH_PATIENCE_S
        isHere = producer.getHostFullName() == getHostFullName()
        return producer.getStatus() == STATUS_RUNNING and isHere and psutil.pid_exists(producer.getPid())

    def _hasMore(self) -> bool:
        """Whether the input was opened again, or got other tomograms, since the closing step was let go. Then what there is to
        do is inserted, and another closing step after it."""
        with self._lock:
            try:
                tsIds, isOpen = self._arrived()
            except sqlite3.Error:
                return False
            if not isOpen and set(tsIds) <= self._inserted:
                return False
            self._inserted, self._first = set(), None
            self._insertClosing()
            self._insertArrived()
        return True

    def createOutputStep(self, tsId: str, run: str) -> None:
        """Register the results of one tomogram in the output, in the place of those of an earlier attempt."""
        with self._lock:
            failed = tsId in self._failures()
            if failed and getattr(self, self._getOutputName(), None) is None:
                return
            output = self._openOutput(getattr(self, self._streamInput))
            self._removeItems(output, self._tsIdField, tsId)
            if not failed:
                for item in self._outputItems(tsId):
                    output.append(item)
            self._writeOutput(output, tsId, None if failed else self._outputDigest(tsId))

    def closeOutputStep(self, run: str) -> None:
        """Close the output, unless there is more to do by now, or fail where there is nothing to put out."""
        if not self._hasMore():
            self._close()

    def _close(self) -> None:
        """Close the output, or fail where there is nothing to put out."""
        output = getattr(self, self._getOutputName(), None)
        if output is not None:
            self._dropGone(output)
        if output is None or output.getSize() == 0:
            reasons = [f"{tsId}: {reason}" for tsId, reason in sorted(self._failures().items())]
            raise TwinError(" ".join([self._isNothing, *reasons]))
        self._finishOutput(output)
        self._closeOutput(output)

    # ------------------------------ what is done ------------------------------
    def _isDone(self, stage: str, tsId: str, digest: str) -> bool:
        """Whether a stage of a tomogram was finished, in this run or an earlier one, with what it depends on now."""
        with self._lock:
            isLost = stage == OUTPUT and not self._hasOutput()
            return not isLost and self._readDone().get(stage, {}).get(tsId) == digest

    def _hasOutput(self) -> bool:
        """Whether there is an output, with its file on disk."""
        output = getattr(self, self._getOutputName(), None)
        return output is not None and os.path.exists(output.getFileName())

    def _hasResults(self, tsId: str) -> bool:
        """Whether the files of a tomogram are still on disk; a folder that was emptied is none."""
        return all(
            os.listdir(path) if os.path.isdir(path) else os.path.exists(path) for path in self._filesOf(tsId)
        )

    def _setDone(self, stage: str, tsId: str, digest: Optional[str]) -> None:
        """Keep that a stage of a tomogram is finished, or with None that it is not."""
        with self._lock:
            done = self._readDone()
            done.setdefault(stage, {})[tsId] = digest
            path = self._getExtraPath(DONE_FILE)
            with open(path + ".tmp", "w") as file:
                json.dump(done, file, indent=1)
            os.replace(path + ".tmp", path)

    def _readDone(self) -> Dict[str, Dict[str, Optional[str]]]:
        path = self._getExtraPath(DONE_FILE)
        if not os.path.exists(path):
            return {}
        with open(path) as file:
            return json.load(file)

    def _getOutputName(self) -> str:
        (name,) = self._possibleOutputs
        return name

    # ------------------------------ the output ------------------------------
    def _openOutput(self, *sources: Pointer) -> EMSet:
        """The output set, open for more items; created and defined where there is none yet.

        `sources` are what Scipion's graph of objects shows it to come from.
        """
        if self._hasOutput():
            output = getattr(self, self._getOutputName())
            output.enableAppend()
            output.setStreamState(Set.STREAM_OPEN)
            return output
        output = self._createOutput()
        output.setStreamState(Set.STREAM_OPEN)
        self._defineOutputs(**{self._getOutputName(): output})
        for source in sources:
            self._defineSourceRelation(source, output)
        return output

    def _writeOutput(self, output: EMSet, tsId: str, digest: Optional[str]) -> None:
        """Write the output after a tomogram's items were put in; `digest` is None where it failed."""
        output.write()
        self._store(output)
        self._setDone(OUTPUT, tsId, digest)

    def _dropGone(self, output: EMSet) -> None:
        """Take out the items of tomograms that are no longer in the input, as after an input was replaced."""
        here = set(self._here)
        registered = self._readDone().get(OUTPUT, {})  # asking the set would load what it holds a second time
        gone = {tsId for tsId, digest in registered.items() if digest is not None} - here
        if gone:
            output.enableAppend()
        for tsId in sorted(gone):
            self._removeItems(output, self._tsIdField, tsId)
            self._setDone(OUTPUT, tsId, None)


def file_stamp(path: str) -> List[Any]:
    """What tells one state of a file or folder from another of the same name; nothing where there is none."""
    if not os.path.exists(path):
        return [path]
    return [path, os.stat(path).st_mtime_ns]
