"""What the protocols of the plugin share: the parallel part of the form, failing politely, continuing.

**Failing.** A tomogram that fails must not stop the hundred others of a session: a step that works on one
tomogram catches what goes wrong, writes it down for the summary, and the others go on.

**Continuing.** Scipion skips a finished step whose function and arguments are those of the run before. So the
arguments carry a digest of the settings that the result depends on, and the number of times the tomogram
has failed: changed settings and failed tomograms are done again, everything else is not.
"""

import hashlib
import json
import os
from typing import Any, Dict, List, Optional

from pwem.objects import EMSet
from pwem.protocols import EMProtocol
from pyworkflow.object import Set
from pyworkflow.protocol import params

FAILED_FILE = "failed.json"
STUMBLED = "Protocol validation failed"
"""How Scipion's message about an exception in a check begins."""


class TwinProtocol(EMProtocol):
    """Base of the plugin's protocols; it is not shown in Scipion's tree, having no label."""

    # ------------------------------ form ------------------------------
    @staticmethod
    def _defineGpuParams(form: Any) -> None:
        """Choice of GPUs; Scipion shows these two in the form's header."""
        form.addHidden(
            params.USE_GPU,
            params.BooleanParam,
            default=True,
            label="Use GPU if there is one?",
            help="With *No* the computing stays on the CPU. With *Yes* a machine without a GPU still works: the "
            "program then takes the CPU by itself.",
        )
        form.addHidden(
            params.GPU_LIST,
            params.StringParam,
            default="0",
            label="GPU IDs",
            help="GPUs to use, as numbers from 0, separated by spaces or commas. To work on several tomograms at "
            "once, give one GPU for each, and one Scipion thread more than that.",
        )

    @staticmethod
    def _defineParallelParams(form: Any) -> None:
        form.addParallelSection(
            threads=2,
            mpi=0,
            binThreads=4,
            binThreadsHelp="*Threads*:\nCPU threads of the program itself, for each tomogram. When only the CPU "
            "computes, give as many as the machine has cores, divided by the number of tomograms at a time.",
        )

    def _engineArgs(self) -> List[str]:
        """Device and threads for a command that computes with the network."""
        device = "auto" if self.usesGpu() else "cpu"
        return ["--device", device, "--threads", str(self.getBinThreads())]

    def _validateGpu(self) -> List[str]:
        if not self.usesGpu():
            return []
        words = str(self.gpuList.get() or "").replace(",", " ").split()
        if not words:
            return ["GPU IDs is empty: give at least one number, such as 0, or say No to the use of a GPU."]
        wrong = [word for word in words if not word.isdigit()]
        if wrong:
            return [f"GPU IDs: '{wrong[0]}' is none; give numbers from 0 on, separated by spaces or commas."]
        return []

    # ------------------------------ checking ------------------------------
    def validate(self) -> List[str]:
        """As Scipion's; where it has named an input that is empty, it does not also show how our checks stumbled over it."""
        errors = super().validate()
        isEmpty = self._hasEmptyInput()
        return [error for error in errors if not (isEmpty and error.startswith(STUMBLED))]

    def warnings(self) -> List[str]:
        return [] if self._hasEmptyInput() else super().warnings()

    def _hasEmptyInput(self) -> bool:
        for name, param in self.getDefinition().iterParams():
            value = getattr(self, name)
            if value.isPointer() and value.get() is None and not param.allowsNull and self.evalParamCondition(name):
                return True
        return False

    # ------------------------------ continuing, failing ------------------------------
    @staticmethod
    def _digest(*settings: Any) -> str:
        """Eight letters that change when a setting does; for the arguments of steps."""
        return hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()[:8]

    def _attempt(self, tsId: str) -> int:
        """How often this tomogram has failed before; for the arguments of steps."""
        return self._record().get(tsId, {}).get("failures", 0)

    def _attempts(self) -> int:
        """How often any tomogram has failed before."""
        return sum(entry["failures"] for entry in self._record().values())

    def _failures(self) -> Dict[str, str]:
        """The reason by tsId, for the tomograms that failed in their last attempt."""
        return {tsId: entry["error"] for tsId, entry in self._record().items() if entry["error"]}

    def _setFailure(self, tsId: str, error: Optional[Exception]) -> None:
        """Write down that a tomogram failed, or with None that it went well (this time)."""
        with self._lock:
            record = self._record()
            if error is None and tsId not in record:
                return
            entry = record.setdefault(tsId, {"failures": 0, "error": None})
            entry["error"] = None if error is None else str(error)
            if error is not None:
                entry["failures"] += 1
                self.error(f"{tsId} failed and is left out: {error}")
            path = self._getExtraPath(FAILED_FILE)
            with open(path + ".tmp", "w") as file:
                json.dump(record, file, indent=1)
            os.replace(path + ".tmp", path)

    def _record(self) -> Dict[str, Dict[str, Any]]:
        path = self._getExtraPath(FAILED_FILE)
        if not os.path.exists(path):
            return {}
        with open(path) as file:
            return json.load(file)

    def _failureSummary(self) -> List[str]:
        failures = self._failures()
        if not failures:
            return []
        title = f"*{len(failures)} tomogram(s) failed* and are not in the output; *Continue* tries them again:"
        return [title] + [f"  {tsId}: {reason}" for tsId, reason in sorted(failures.items())]

    # ------------------------------ outputs ------------------------------
    @staticmethod
    def _removeItems(output: EMSet, attribute: str, tsId: str) -> None:
        """Take a tomogram's items out of an output set, before a new attempt's are put in."""
        mapper = output._getMapper()  # Set itself has no way to remove an item
        old = [item.getObjId() for item in output.iterItems(where=f"{attribute}='{tsId}'")]
        for item in old:
            mapper.db.deleteObject(item)
        output._size.set(output.getSize() - len(old))

    def _closeOutput(self, output: EMSet) -> None:
        output.setStreamState(Set.STREAM_CLOSED)
        output.write()
        self._store(output)
        output.close()
