"""The map of candidates where umap-learn can keep nothing: an installation that is read only, a user without a home. The
module is one of ours that refuses as numba does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tomotwin_core.clustering import atlas_making
from tomotwin_core.clustering.manifold import manifold

REFUSES = "raise RuntimeError(\"cannot cache function 'f': no locator available for file 'layouts.py'\")\n"
MAPS = (
    "import numpy as np\n"
    "class UMAP:\n"
    "    def __init__(self, **options): pass\n"
    "    def fit_transform(self, vectors): return np.asarray(vectors)[:, :2] + 100\n"
)


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32)


def install(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba")
    (folder / "umap.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "umap", raising=False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")


def test_what_is_compiled_goes_to_a_temporary_folder_where_nothing_else_can_be_written(
    vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = f"import numba\nif not numba.config.CACHE_DIR:\n    {REFUSES}"
    install(tmp_path, refuses + MAPS, monkeypatch)
    np.testing.assert_allclose(manifold(vectors), vectors[:, :2] + 100)
    import numba

    assert os.path.isdir(numba.config.CACHE_DIR)


@pytest.mark.parametrize(
    "text",
    [REFUSES, "raise OSError(30, 'Read-only file system')\n", "raise ImportError('no llvmlite')\n", "import nowhere\n"],
)
def test_the_map_shows_principal_components_and_says_so_where_umap_cannot_be_used(
    vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    install(tmp_path, text, monkeypatch)
    np.testing.assert_array_equal(manifold(vectors), manifold(vectors, fast=True))
    assert "the map shows principal components" in capsys.readouterr().err


def test_what_is_learnt_once_is_kept_in_a_temporary_folder_where_nobody_knows_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(atlas_making.Path, "home", no_home)
    monkeypatch.setattr(atlas_making.tempfile, "tempdir", str(tmp_path))
    assert atlas_making._cache().parent == tmp_path
