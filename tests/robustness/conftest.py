"""Shared by what is tried with good files."""

from pathlib import Path

import pytest
from good_files import make_all

from tomotwin_core.embedding import open_field
from tomotwin_core.picking import load_references


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good files, made once."""
    folder = tmp_path_factory.mktemp("good")
    make_all(folder)
    references = load_references(folder / "references.safetensors")
    # Of the model that the tomogram was embedded with.
    object.__setattr__(references, "model_hash", open_field(folder / "tomo.zarr").model_hash)
    references.save(folder / "own.safetensors")
    return folder
