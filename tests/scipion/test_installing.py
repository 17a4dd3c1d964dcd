"""Wheel, sdist and Scipion's installer: what it takes for the plugin, what it runs for the engine, what it leaves.

Nothing is downloaded: the package is built with the tools that are here, and where the installer would call pip
or conda a stand-in writes down what it is asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tomotwin_scipion import installer
from tomotwin_scipion.installer import InstallSettings, install_command, setting_errors

ROOT = Path(__file__).parents[2]
PACKAGES = ("_tomotwin_scipion", "tomotwin_core", "tomotwin_scipion", "tomotwin_view")
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


# ------------------------------ the distribution ------------------------------
def build(source: Path, kind: str, out: Path) -> Path:
    """Build a wheel or an sdist of a folder with the setuptools that are here."""
    out.mkdir(exist_ok=True)
    call = [sys.executable, "-c", BUILD, f"build_{kind}", str(out)]
    done = subprocess.run(call, cwd=source, check=True, capture_output=True, text=True)
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built: building would leave its traces in the project's own folder."""
    folder = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGES.txt", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(source, "wheel", tmp_path_factory.mktemp("wheel"))


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def test_the_wheel_holds_every_module_and_every_data_file_of_the_packages(source: Path, wheel: Path) -> None:
    wanted = {
        str(path.relative_to(source))
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file()
    }
    assert {name for name in names_in(wheel) if ".dist-info/" not in name} == wanted


def test_the_sdist_makes_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build(source, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("tomotwin_scipion-*")
    assert names_in(build(unpacked, "wheel", tmp_path / "again")) == names_in(wheel)


def test_scipions_installer_finds_the_plugin_and_its_engine_in_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    call = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(tmp_path)]
    subprocess.run([*call, str(wheel)], check=True, env={**os.environ, "PIP_CONFIG_FILE": os.devnull})
    ask = """
import json
from pyworkflow import Config
from scipion.install.plugin_funcs import PluginInfo
domain = Config.getDomain()
loaded = domain.getPlugins()["tomotwin_scipion"].__file__
protocols = [name for name in domain.getProtocols() if name.startswith("ProtTwin")]
info = PluginInfo("tomotwin-scipion", "tomotwin-scipion", remote=False)
plugin = info.getPluginClass()
print(json.dumps([loaded, protocols, str(info.getDistribution().locate_file("")), type(plugin).__module__, info.getBinVersions()]))
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True, env=environment)
    loaded, protocols, place, module, binaries = json.loads(done.stdout.splitlines()[-1])
    assert Path(loaded).parent == tmp_path / "tomotwin_scipion"
    assert {"ProtTwinEmbedTomograms", "ProtTwinReferencePicking"} <= set(protocols)
    assert Path(place) == tmp_path
    assert (module, binaries) == ("tomotwin_scipion", ["tomotwin_engine-1.0.0"])


# ------------------------------ the engine's environment ------------------------------
STAND_IN = """#!/bin/sh
# Python, its pip and conda in one: writes down what it is asked for, and makes the environment.
echo "$(basename "$0") $*" >> {log}
case "$*" in
    *"import sys, venv"*) echo 3 11 ;;
    *"venv env"*|create*) mkdir -p env/bin env/conda-meta && cp "$0" env/bin/python ;;
    *"pip install"*"[engine]"*) touch env/bin/tomotwin ;;
esac
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A program that stands in for Python and conda; what it was asked for is in the file calls beside it."""
    folder = tmp_path / "stand_in"
    folder.mkdir()
    for name in ("python3.11", "conda"):
        (folder / name).write_text(STAND_IN.format(log=folder / "calls"))
        (folder / name).chmod(0o755)
    return folder


def run_in(folder: Path, settings: InstallSettings, stand_in: Path) -> list[str]:
    """What the installer's line asks of Python and conda when a shell runs it in the package's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    line = install_command(settings)
    (stand_in / "calls").unlink(missing_ok=True)
    environment = {**os.environ, "PATH": f"{stand_in}:/usr/bin:/bin"}
    subprocess.run(["sh", "-c", line], cwd=folder, env=environment, check=True)
    assert (folder / "env" / "bin" / "tomotwin").exists()
    return (stand_in / "calls").read_text().splitlines()


@pytest.mark.parametrize(
    ("build", "index"), [("cpu", "whl/cpu"), ("cu126", "whl/cu126"), ("cuda", None), ("auto", "whl/cpu")]
)
def test_the_build_of_torch_that_was_asked_for_comes_first_and_from_its_own_index(
    build: str, index: str | None, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installer.shutil, "which", lambda name: None)  # no nvidia-smi, whatever this machine has
    settings = InstallSettings(python=str(stand_in / "python3.11"), torch=build, source="1.0.0", pip="--no-cache-dir")
    calls = run_in(tmp_path / "em" / "engine", settings, stand_in)
    assert calls[0] == "python3.11 -m venv env"
    pip = "python -m pip install --disable-pip-version-check --no-cache-dir"
    engine = f"{pip} tomotwin-scipion[engine]==1.0.0"
    torch = [f"{pip} --index-url https://download.pytorch.org/{index} torch>=2.6"] if index else []
    assert calls[1:] == [*torch, engine]


def test_conda_makes_the_environment_in_the_same_folder_and_only_once(stand_in: Path, tmp_path: Path) -> None:
    settings = InstallSettings(environment="conda", torch="cuda", condaActivation="export A=b &&")
    calls = run_in(tmp_path / "engine", settings, stand_in)
    assert calls[0] == "conda create --yes --prefix ./env python=3.11 pip"
    again = run_in(tmp_path / "engine", settings, stand_in)  # an interrupted installation goes on
    assert again == calls[1:]


def test_conda_is_taken_by_itself_only_where_no_python_is_new_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = InstallSettings(condaActivation="eval conda &&")
    assert "conda create" not in install_command(settings)  # the Python of these tests is new enough
    monkeypatch.setattr(installer, "find_python", lambda named: None)
    assert "eval conda && conda create" in install_command(settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (InstallSettings(torch="cuda12"), "TOMOTWIN_ENGINE_TORCH=cuda12 is unknown"),
        (InstallSettings(environment="docker"), "TOMOTWIN_ENGINE_ENVIRONMENT=docker is unknown"),
        (InstallSettings(python="/nowhere/python"), "/nowhere/python is not one: name one in TOMOTWIN_ENGINE_PYTHON"),
    ],
)
def test_a_setting_that_cannot_be_is_told_and_nothing_is_installed(
    settings: InstallSettings, words: str, tmp_path: Path
) -> None:
    assert words in " ".join(setting_errors(settings))
    done = subprocess.run(["sh", "-c", install_command(settings)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and words in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("/software/my.whl", "/software/my.whl[engine]"),
        ("2.0.1", "tomotwin-scipion[engine]==2.0.1"),
        ("git+https://example.org/a.git", "tomotwin-scipion[engine] @ git+https://example.org/a.git"),
        ("", f"{ROOT}[engine]"),
    ],
)
def test_the_engine_comes_from_where_the_configuration_says(source: str, asked: str) -> None:
    assert installer.engine_requirement(source) == asked


def test_the_libraries_of_the_engine_are_known_and_none_is_missing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installer.missing_libraries() == []
    monkeypatch.setattr(installer.sys, "version_info", (3, 8, 18))
    assert {"torch", "zarr", "safetensors", "scikit-learn"} <= set(installer.missing_libraries())


def test_scipion_installs_the_engine_without_a_network_and_uninstalling_leaves_nothing(
    stand_in: Path, tmp_path: Path
) -> None:
    software = tmp_path / "software"
    (software / "em").mkdir(parents=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TOMOTWIN")},
        "SCIPION_SOFTWARE": str(software),
        "EM_ROOT": str(software / "em"),
        "TOMOTWIN_ENGINE_PYTHON": str(stand_in / "python3.11"),
        "TOMOTWIN_ENGINE_TORCH": "cuda",
        "http_proxy": "http://127.0.0.1:9",  # nothing answers there
        "https_proxy": "http://127.0.0.1:9",
    }

    def scipion(mode: str, package: str = "tomotwin_engine") -> str:
        call = [sys.executable, "-m", "scipion", mode, package]
        return subprocess.run(call, env=environment, capture_output=True, text=True).stdout

    said = scipion("installb")
    assert (software / "em" / "tomotwin_engine-1.0.0" / "env" / "bin" / "tomotwin").exists(), said
    assert "All targets exist, skipping" in scipion("installb")
    said = scipion("uninstallb", "tomotwin_engine-1.0.0")
    assert list((software / "em").iterdir()) == [], said
