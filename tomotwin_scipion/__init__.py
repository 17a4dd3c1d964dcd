"""TomoTwin in Scipion: find macromolecules in cryo-electron tomograms with a trained generalist.

The plugin speaks to its engine only through the command ``tomotwin`` and the files that it reads and
writes, so the engine may live in Scipion's own environment, in one that Scipion's installer makes for it
(``scipion installb tomotwin_engine``, see installer.py), or anywhere that a line of the configuration names.
"""

import os
import shlex
import shutil
import subprocess
import sys
import uuid
from typing import Any, Iterable, List, Optional

import pwem
import pyworkflow.utils as pwutils
from pyworkflow import TOMO

try:
    import tomo  # noqa: F401  all protocols build on it, and none can say so when it is missing
except ModuleNotFoundError as error:
    if error.name != "tomo":
        raise
    raise ModuleNotFoundError(
        "tomotwin_scipion needs the plugin scipion-em-tomo, which is not installed: scipion installp -p scipion-em-tomo",
        name="tomo",
    ) from None

from . import installer
from .constants import (
    DISTRIBUTION,
    ENGINE_PACKAGE,
    ENGINE_VERSION,
    NAME,
    TOMOTWIN_BIN,
    TOMOTWIN_ENGINE_ACTIVATION,
    TOMOTWIN_ENGINE_ENVIRONMENT,
    TOMOTWIN_ENGINE_HOME,
    TOMOTWIN_ENGINE_MODEL,
    TOMOTWIN_ENGINE_PIP,
    TOMOTWIN_ENGINE_PYTHON,
    TOMOTWIN_ENGINE_SOURCE,
    TOMOTWIN_ENGINE_TORCH,
)
from .errors import SCRIPT, TwinError, reason_of, sentence_of

__version__ = "1.0.0"
_logo = "tomotwin_scipion_logo.png"
_references = ["Rice2023"]


class Plugin(pwem.Plugin):
    """Where the engine is, how it is installed and how a protocol runs it."""

    _homeVar = TOMOTWIN_ENGINE_HOME
    _supportedVersions = [ENGINE_VERSION]
    _processingField = [TOMO]
    _url = "https://doi.org/10.1038/s41592-023-01878-z"  # the paper of the method: the plugin has no page of its own

    def getName(self) -> str:
        """What stands before the labels of protocols: the module's name is long, and its underscore would begin italics."""
        return NAME

    # ------------------------------ configuration ------------------------------
    @classmethod
    def _defineVariables(cls) -> None:
        cls._defineEmVar(
            TOMOTWIN_ENGINE_HOME,
            f"{ENGINE_PACKAGE}-{ENGINE_VERSION}",
            description=f"Folder of the environment that `scipion installb {ENGINE_PACKAGE}` makes for the engine.",
        )
        cls._defineVar(
            TOMOTWIN_BIN,
            cls._defaultCommand(),
            description="The command `tomotwin`. Default: the one of the engine's own environment where that is "
            "installed, else the one of Scipion's environment.",
        )
        cls._defineVar(
            TOMOTWIN_ENGINE_ACTIVATION,
            "",
            description="Shell command that must run before `tomotwin`, such as `module load tomotwin` or "
            "`conda activate tomotwin`. Usually empty.",
        )
        cls._defineVar(
            TOMOTWIN_ENGINE_MODEL,
            "",
            description="Model file that the forms offer first, such as one adapted to this site's tomograms. "
            "Empty: the released model.",
        )
        cls._defineVar(
            TOMOTWIN_ENGINE_SOURCE,
            "",
            description=f"What `scipion installb {ENGINE_PACKAGE}` installs: a folder, wheel, URL or version. "
            "Empty: the version of this plugin.",
        )
        cls._defineVar(
            TOMOTWIN_ENGINE_TORCH,
            "auto",
            description="PyTorch build that the installer takes: cuda, cpu, auto (cuda where nvidia-smi is found), or "
            "one for a certain CUDA such as cu126.",
        )
        cls._defineVar(
            TOMOTWIN_ENGINE_ENVIRONMENT,
            "auto",
            description="What makes the engine's environment: venv, conda, or auto (conda only where no Python 3.11 or "
            "later is found).",
        )
        cls._defineVar(
            TOMOTWIN_ENGINE_PYTHON,
            "",
            description="Python 3.11 or later for the engine's environment. Empty: Scipion's own or one on the path.",
        )
        cls._defineVar(
            TOMOTWIN_ENGINE_PIP,
            "",
            description="Further words for the installer's pip, such as `--no-index --find-links /software/wheels`.",
        )

    @classmethod
    def _defaultCommand(cls) -> str:
        ownEnvironment = cls.getHome("env", "bin", "tomotwin")
        besidePython = os.path.join(os.path.dirname(sys.executable), "tomotwin")
        for path in (ownEnvironment, besidePython):
            if os.path.isfile(path):
                return path
        return "tomotwin"

    @classmethod
    def getEnviron(cls) -> pwutils.Environ:
        """Environment of the engine: Scipion's, without what would lead another Python astray."""
        environ = pwutils.Environ(os.environ)
        environ.pop("PYTHONPATH", None)
        return environ

    @classmethod
    def validateInstallation(cls) -> List[str]:
        """Say in one sentence what is missing; an empty list when the engine can be called."""
        if cls.getVar(TOMOTWIN_ENGINE_ACTIVATION):
            return []  # what the activation brings is known only to a shell
        command = cls.getVar(TOMOTWIN_BIN)
        path = shutil.which(command)
        if path is None:
            return [
                f"The command '{command}' was not found: install the engine with 'scipion installb {ENGINE_PACKAGE}', "
                f"or set {TOMOTWIN_BIN} in scipion.conf to an existing 'tomotwin' command."
            ]
        # The plugin's plain install brings the command without the libraries it computes with.
        inScipionsEnvironment = os.path.dirname(os.path.abspath(path)) == os.path.dirname(sys.executable)
        missing = installer.missing_libraries() if inScipionsEnvironment else []
        if missing:
            return [
                f"The engine's libraries are not installed ({', '.join(missing)}): run "
                f"'scipion installb {ENGINE_PACKAGE}', or in Scipion's environment (Python 3.11 or later) "
                f"pip install '{DISTRIBUTION}[engine]'."
            ]
        return []

    # ------------------------------ running ------------------------------
    @classmethod
    def getProgram(cls, gpus: str = "", within: Iterable[str] = ()) -> str:
        """The shell's words in front of the subcommand.

        Parameters
        ----------
        gpus
            Identifiers for CUDA_VISIBLE_DEVICES, separated by commas; empty leaves the variable alone.
        within
            A command and its words that run the program.
        """
        activation = cls.getVar(TOMOTWIN_ENGINE_ACTIVATION).strip().rstrip("&;").strip()
        program = activation + " && " if activation else ""
        if gpus:
            program += f"CUDA_VISIBLE_DEVICES={gpus} "
        return program + " ".join(shlex.quote(word) for word in [*within, cls.getVar(TOMOTWIN_BIN)])

    @classmethod
    def runTomotwin(
        cls,
        protocol: Any,
        command: str,
        args: Iterable[Any],
        gpu: bool = False,
        expected: Optional[str] = None,
    ) -> None:
        """Run ``tomotwin COMMAND ARGS`` inside a step of a protocol.

        Parameters
        ----------
        protocol
            The running protocol; its project's folder is the working directory.
        command
            Subcommand of the engine, such as ``embed``.
        args
            Words of the command line; they are quoted here.
        gpu
            Whether the command computes with the network, and so takes the step's GPU.
        expected
            A path that must be there afterwards: a job that failed in a queue raises nothing by itself.

        Raises
        ------
        TwinError
            With the engine's own sentence, where it fails.
        """
        # A queueing system hands out its GPUs itself and has set CUDA_VISIBLE_DEVICES to them.
        shareGpus = gpu and protocol.usesGpu() and not protocol.useQueue()
        gpus = protocol.getExecutor().getGpuListStr(",") if shareGpus else ""
        words = " ".join(shlex.quote(str(word)) for word in args)
        folder = protocol._getTmpPath()
        pwutils.makePath(folder)
        told = os.path.join(folder, f"errors_{command}_{uuid.uuid4().hex[:8]}.txt")
        try:
            program = cls.getProgram(gpus, ["sh", SCRIPT, told])
            protocol.runJob(program, f"{command} {words}", env=cls.getEnviron())
            sentence = sentence_of(told)
        except subprocess.CalledProcessError as error:
            raise TwinError(reason_of(command, error.returncode, told)) from None
        finally:
            pwutils.cleanPath(told)
        if sentence is not None:
            raise TwinError(sentence)
        if expected is not None and not os.path.exists(expected):
            raise TwinError(f"tomotwin {command} left no {expected}: see the log of the job.")

    # ------------------------------ installing ------------------------------
    @classmethod
    def defineBinaries(cls, env: Any) -> None:
        """Offer the engine's own environment; it comes with the plugin unless there is an engine already."""
        settings = installer.InstallSettings(
            environment=cls.getVar(TOMOTWIN_ENGINE_ENVIRONMENT).strip().lower(),
            python=cls.getVar(TOMOTWIN_ENGINE_PYTHON).strip(),
            torch=cls.getVar(TOMOTWIN_ENGINE_TORCH).strip().lower(),
            source=cls.getVar(TOMOTWIN_ENGINE_SOURCE).strip(),
            pip=cls.getVar(TOMOTWIN_ENGINE_PIP).strip(),
            condaActivation=cls.getCondaActivationCmd() or "",
        )
        configured = TOMOTWIN_BIN in os.environ or bool(cls.getVar(TOMOTWIN_ENGINE_ACTIVATION))
        installer.add_engine(env, settings, wanted=not configured and bool(installer.missing_libraries()))
