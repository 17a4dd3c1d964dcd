"""The engine's own environment: what Scipion's installer runs for ``scipion installb tomotwin_engine``.

In come the variables of the configuration (`InstallSettings`); out goes one line for the shell that makes the
folder ``env`` in the package's folder, with the command ``env/bin/tomotwin`` in it. A venv needs nothing but a
Python 3.11; where there is none, conda brings one, into the same folder. So the environment is one folder, and
taking that folder away takes all of it.

PyTorch comes first and from its own index alone: were PyPI asked too, pip would take PyPI's newer build for
another CUDA. What Scipion's installer would fetch from its web site, the empty archive ``void.tgz``, is made here,
so that a machine without a network can install from a folder of wheels.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any, Dict, List, NamedTuple, Optional

from .constants import DISTRIBUTION, ENGINE_PACKAGE, ENGINE_VERSION, OLDEST_ENGINE_PYTHON

TORCH_INDEX = "https://download.pytorch.org/whl/"
TORCH_BUILD = re.compile(r"cpu|cuda|auto|cu\d{3}")
VENV, CONDA, AUTO = "venv", "conda", "auto"
EMPTY_ARCHIVE = "file:/dev/null"
"""Where Scipion's installer finds void.tgz, which stands for "nothing to download"; it is never unpacked."""


class InstallSettings(NamedTuple):
    """What the configuration says about the engine's environment; see the variables of the same names."""

    environment: str = AUTO
    python: str = ""
    torch: str = AUTO
    source: str = ""
    pip: str = ""
    condaActivation: str = ""


def add_engine(env: Any, settings: InstallSettings, wanted: bool) -> None:
    """Register the engine's environment with Scipion's installer.

    Parameters
    ----------
    env
        ``scipion.install.Environment``.
    settings
        From the configuration.
    wanted
        Whether it is installed along with the plugin, without being asked for.
    """
    env.addPackage(
        ENGINE_PACKAGE,
        version=ENGINE_VERSION,
        tar="void.tgz",
        url=EMPTY_ARCHIVE,
        commands=[(install_command(settings), "env/bin/tomotwin")],
        default=wanted,
        vars=installing_environment(),
    )


def install_command(settings: InstallSettings) -> str:
    """The line for the shell, run in the package's folder; a wrong setting becomes a line that says so and fails."""
    errors = setting_errors(settings)
    if errors:
        return f"echo {shlex.quote('ERROR: ' + ' '.join(errors))} && false"
    pip = "env/bin/python -m pip install --disable-pip-version-check"
    if settings.pip.strip():
        pip += " " + settings.pip.strip()
    words = [make_environment(settings)]
    index = torch_index(settings.torch)
    if index:
        words.append(f"{pip} --index-url {index} {shlex.quote('torch>=2.6')}")
    words.append(f"{pip} {shlex.quote(engine_requirement(settings.source))}")
    # The link that stood for the archive; another plugin's real one stays.
    words.append("find .. -maxdepth 1 -name void.tgz -lname /dev/null -delete")
    return " && ".join(words)


def setting_errors(settings: InstallSettings) -> List[str]:
    """Sentences about settings that cannot be, each with its variable."""
    errors = []
    if not TORCH_BUILD.fullmatch(settings.torch):
        errors.append(
            f"TOMOTWIN_ENGINE_TORCH={settings.torch} is unknown: take auto, cpu, cuda, or a build such as cu126."
        )
    if settings.environment not in (AUTO, VENV, CONDA):
        errors.append(f"TOMOTWIN_ENGINE_ENVIRONMENT={settings.environment} is unknown: take {AUTO}, {VENV} or {CONDA}.")
    elif settings.environment != CONDA and find_python(settings.python) is None and not takes_conda(settings):
        wanted = ".".join(map(str, OLDEST_ENGINE_PYTHON))
        given = f"{settings.python} is not one" if settings.python else "none was found"
        errors.append(
            f"The engine needs Python {wanted} or later, and {given}: name one in TOMOTWIN_ENGINE_PYTHON, "
            f"or set TOMOTWIN_ENGINE_ENVIRONMENT={CONDA} to have conda bring it."
        )
    return errors


def installing_environment() -> Dict[str, str]:
    """The installer's environment variables (proxies, pip's own), without what would lead another Python astray."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


# ------------------------------ the environment ------------------------------
def make_environment(settings: InstallSettings) -> str:
    """Shell words that make the folder ``env`` with a Python and pip in it; nothing is done to one that is there."""
    if takes_conda(settings):
        version = ".".join(map(str, OLDEST_ENGINE_PYTHON))
        create = f"conda create --yes --prefix ./env python={version} pip"
        return f"{{ [ -d env/conda-meta ] || {{ {settings.condaActivation.strip()} {create}; }}; }}"
    return f"{shlex.quote(find_python(settings.python) or 'python3')} -m venv env"


def takes_conda(settings: InstallSettings) -> bool:
    """Whether conda makes the environment: where it is asked for, or no Python is new enough and conda is there."""
    if settings.environment == AUTO:
        hasConda = bool(settings.condaActivation.strip()) or shutil.which("conda") is not None
        return hasConda and not settings.python and find_python("") is None
    return settings.environment == CONDA


def find_python(named: str) -> Optional[str]:
    """A Python that the engine runs with: the one named, else Scipion's own, else the newest on the path; or None."""
    if named:
        return named if python_version(named) >= OLDEST_ENGINE_PYTHON else None
    if sys.version_info[:2] >= OLDEST_ENGINE_PYTHON:
        return sys.executable
    for minor in range(OLDEST_ENGINE_PYTHON[1] + 3, OLDEST_ENGINE_PYTHON[1] - 1, -1):
        python = shutil.which(f"python3.{minor}")
        if python is not None and python_version(python) >= OLDEST_ENGINE_PYTHON:  # a pyenv's shim may be hollow
            return python
    return None


def python_version(python: str) -> tuple:
    """Major and minor version of an interpreter; (0, 0) where it does not run, or cannot make environments."""
    call = [python, "-c", "import sys, venv, ensurepip; print(*sys.version_info[:2])"]
    try:
        words = subprocess.run(call, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return (0, 0)
    return tuple(int(word) for word in words.split())


# ------------------------------ what is put into it ------------------------------
def torch_index(build: str) -> str:
    """PyTorch's index for a build; empty for the one that PyPI carries, which is a CUDA build on Linux."""
    if build == AUTO:
        build = "cuda" if shutil.which("nvidia-smi") else "cpu"
    return "" if build == "cuda" else TORCH_INDEX + build


def engine_requirement(source: str) -> str:
    """What pip is asked for: a folder, wheel, URL or version, or else the plugin's own files."""
    source = source.strip()
    if not source:
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        isSourceTree = os.path.isfile(os.path.join(root, "setup.py"))
        source = root if isSourceTree else ENGINE_VERSION
    if source.startswith(("http:", "https:", "git+")):
        return f"{DISTRIBUTION}[engine] @ {source}"
    if re.fullmatch(r"\d+(\.\w+)*", source):
        return f"{DISTRIBUTION}[engine]=={source}"
    return source + "[engine]"


def missing_libraries() -> List[str]:
    """Distributions of the extra ``engine`` that this Python has not got, or has too old; all of them where it is
    too old itself."""
    import importlib_metadata  # Scipion brings it; the standard library's came with Python 3.8 and lacks much
    from packaging.requirements import Requirement

    missing = []
    for line in importlib_metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(line)
        if requirement.marker is None or not requirement.marker.evaluate({"extra": "engine"}):
            continue
        try:
            version = importlib_metadata.version(requirement.name)
        except importlib_metadata.PackageNotFoundError:
            version = ""
        tooOld = sys.version_info[:2] < OLDEST_ENGINE_PYTHON
        if tooOld or not version or not requirement.specifier.contains(version, prereleases=True):
            missing.append(requirement.name)
    return missing
