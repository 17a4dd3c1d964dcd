"""Say what a file is: a tomogram, an embedding, a model, references, coordinates, a library, a tilt series. Without a file: where
this program is, versions, devices, the released model; the lines to send along with a question."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from tomotwin_core import __version__
from tomotwin_core.cli.options import add_voxel_size

HELP = "say what a file is, or what is installed"
LIBRARIES = ("torch", "numpy", "scipy", "zarr", "mrcfile", "starfile", "gemmi", "scikit-learn")
"""Whose versions are told: those that read, write or compute."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    add_voxel_size(parser, "a volume or of positions")
    parser.add_argument(
        "--molecule",
        action="store_true",
        help="FILE is a molecule (structure, density map, pdb:ID, emdb:ID, library:ID): say its mass and how large it is",
    )
    parser.add_argument("--dark", action="store_true", help="with --molecule: it is dark in its map, not bright")


def run(options: argparse.Namespace) -> None:
    if not options.files:
        _installed()
    for file in options.files:
        if options.molecule:
            from tomotwin_core.structures.sources import load_density

            density = load_density(str(file), voxel_size_A=options.voxel_size, dark_map=options.dark)
            print(f"{file}: molecule of {density.mass_kDa:.0f} kDa, {density.diameter_A:.0f} A across")
        else:
            print(f"{file}: {describe(file, options.voxel_size)}")


def describe(file: Path, voxel_size_A: float | None = None) -> str:
    """One paragraph about a file; UserError if it is missing or of no known kind."""
    from tomotwin_core.errors import UserError

    if not file.exists():
        raise UserError(f"{file}: no such file")
    name = file.name.lower()
    if file.is_dir() and not (file / "zarr.json").exists() and file.suffix != ".zarr":
        return _project(file)
    if file.is_dir():
        from tomotwin_core.embedding import open_field

        field = open_field(file)
        grid = " x ".join(map(str, field.shape))
        what = f"embeddings of {field.tomogram} ({field.voxel_size_A:g} A, zyx {field.tomogram_shape}), grid {grid} every {field.spacing_A:g} A, model {field.model_hash}"
        return f"{what}\n  {field.unusual}" if field.unusual else what
    if name.endswith(".safetensors"):
        return _safetensors(file)
    from tomotwin_core.coordinates import ENDINGS
    from tomotwin_core.project import is_project_file

    if is_project_file(file):
        return _project(file)
    if name.endswith(ENDINGS):
        return _positions(file, voxel_size_A)
    if name.endswith(".npz"):
        from tomotwin_core.structures import load_library

        library = load_library(file)
        return f"density library of {len(library.entries)} molecules, {len(library.ids('train'))} to train on, {len(library.ids('heldout'))} held out"
    from tomotwin_core.project import found_beside
    from tomotwin_core.tomogram import open_tomogram

    source = open_tomogram(file, voxel_size_A, finest_A=0.2)
    source.check()
    nm = " x ".join(f"{s * source.voxel_size_A / 10:.0f}" for s in source.shape)
    what = f"volume, zyx {source.shape}, {source.dtype}, {source.voxel_size_A:g} A per voxel ({nm} nm)"
    try:
        series = found_beside(file, source.name)
    except UserError as error:  # the tomogram is fine all the same
        return f"{what}\n  its tilt series cannot be read: {error}"
    return what if series is None else f"{what}\n  its tilt series, {series.source}: {series.described()}"


def _project(file: Path) -> str:
    """The tilt series of a project, each in one line."""
    from tomotwin_core.project import read_project

    series = read_project(file).all()
    return "\n  ".join(["tilt series of a project", *(f"{s.name}: {s.described()}" for s in series)])


def _positions(file: Path, voxel_size_A: float | None) -> str:
    """Tomograms, counts and labels of a coordinates file; its voxel size where the file or the user says one."""
    from tomotwin_core.coordinates import read_all_coordinates
    from tomotwin_core.coordinates.plausible import VoxelSizeUnknown

    stated = True
    try:
        tables = read_all_coordinates(file, voxel_size_A=voxel_size_A)
    except VoxelSizeUnknown:
        stated, tables = False, read_all_coordinates(file, voxel_size_A=1.0)
    lines = [
        f"{t.tomogram}: {len(t)} positions "
        + (f"at {t.voxel_size_A:g} A, " if stated else "in voxels whose size it does not say, ")
        + ", ".join(f"{k or 'unnamed'} {len(v)}" for k, v in t.by_label().items())
        for t in tables
    ]
    return "coordinates\n  " + "\n  ".join(lines)


def _safetensors(file: Path) -> str:
    from tomotwin_core.model.checkpoint import load_model, read_safetensors
    from tomotwin_core.picking import load_references

    _, metadata = read_safetensors(file, "a model or references")
    if "references" in metadata:
        references = load_references(file)
        lines = [
            f"{t.name}: {len(t.prototypes)} prototypes, {t.diameter_A:.0f} A, threshold {t.threshold:.3f}, from {t.origin}"
            for t in references.targets
        ]
        return f"references for model {references.model_hash}\n  " + "\n  ".join(lines)
    model = load_model(file)
    return f"model {model.hash}, {model.network.n_parameters} parameters\n{json.dumps(model.card, indent=1)}"


def _installed() -> None:
    # First what can be told where something is missing.
    print(f"tomotwin {__version__} in {Path(__file__).parents[1]}")
    print(f"Python {platform.python_version()}, {sys.executable}")
    print(f"system: {platform.platform()}, {os.cpu_count()} CPU cores")
    print("libraries: " + ", ".join(f"{name} {_version(name)}" for name in LIBRARIES))
    print(*devices(), sep="\n")
    from tomotwin_core.model.checkpoint import RELEASED_MODEL, load_model
    from tomotwin_core.structures import load_library

    library, model = load_library(), load_model()
    training = model.card.get("training", {})
    print(
        f"molecules: {len(library.ids('train'))} to train on, {len(library.ids('heldout'))} held out, {len(library.ids('crowder'))} others"
    )
    print(f"released model {model.hash}: {RELEASED_MODEL}")
    print(
        f"  {model.network.n_parameters} parameters, {training.get('particles_seen', 0)} particles seen; "
        f"its card: tomotwin info {RELEASED_MODEL}"
    )


def devices() -> list[str]:
    """Lines that say what PyTorch computes on here, and where there is no GPU, why."""
    import torch

    lines = [f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads"]
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(number)
            lines.append(f"GPU {number}: {device.name}, {device.total_memory / 2**30:.0f} GB of memory")
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        if chosen is not None:
            lines.append(f"  numbered as CUDA_VISIBLE_DEVICES={chosen} leaves them")
    elif torch.version.cuda is None:
        lines.append("no GPU: this build of torch has no CUDA")
    else:
        reason = (
            "CUDA_VISIBLE_DEVICES hides them all"
            if os.environ.get("CUDA_VISIBLE_DEVICES") == ""
            else "no driver for it, or no card, is found (nvidia-smi)"
        )
        lines.append(f"no GPU: torch is built for CUDA {torch.version.cuda}, but {reason}")
    return lines


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"
