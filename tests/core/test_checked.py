"""What stands in files is believed only as far as a schema says, and names are no paths."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import tiny_network
from safetensors.torch import load_file, save_file

from tomotwin_core.clustering.selection import read_selection
from tomotwin_core.coordinates import Coordinates, read_all_coordinates, write_coordinates
from tomotwin_core.coordinates.files import write_folder
from tomotwin_core.errors import UserError
from tomotwin_core.model import load_model, save_model
from tomotwin_core.names import fault_of
from tomotwin_core.picking import load_references
from tomotwin_core.picking.references import ReferenceSet, Target
from tomotwin_core.structures import load_library
from tomotwin_core.toml_settings import read_settings
from tomotwin_core.training.settings import TrainingPlan
from tomotwin_core.training.state import read_state, write_state

PATHS = ["../up", "../../victim", "/tmp/victim", "a/b", "..", ".", "a\nb", "a\0b", "\udcff", "x" * 201]


@pytest.mark.parametrize("name", PATHS)
def test_what_is_a_path_or_no_text_is_no_name(name: str) -> None:
    assert fault_of(name)


@pytest.mark.parametrize("name", ["TS_01", "Zürich größer", "a.b.c", "..a", "x" * 200, "日本", "it's", "data_1"])
def test_names_are_names(name: str) -> None:
    assert not fault_of(name)


@pytest.mark.parametrize("format", ["star", "relion4", "coords", "cbox", "dynamo", "copick", "imod"])
@pytest.mark.parametrize("name", ["../../victim", "/tmp/victim", "a/../../victim", "..", "x/y"])
def test_no_format_writes_beside_its_folder(tmp_path: Path, format: str, name: str) -> None:
    table = Coordinates.from_arrays([[1, 2, 3]], 10.0, name, (9, 9, 9), label="a")
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="is a path, not a name"):
        write_folder(tmp_path / "in" / "out", [table], format)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("name", ["../../victim", "/tmp/victim", "a/b", "..", "a/.."])
def test_a_path_for_a_tomogram_is_refused_whatever_file_it_stands_in(tmp_path: Path, name: str) -> None:
    write_coordinates(tmp_path / "a.json", Coordinates.from_arrays([[1, 2, 3]], 10.0, "tomo", (9, 9, 9), label="a"), "copick")
    write_coordinates(tmp_path / "a.star", Coordinates.from_arrays([[1, 2, 3]], 10.0, "tomo", (9, 9, 9), label="a"))
    for file, quoted in (("a.json", '"run_name": "tomo"'), ("a.star", "tomo  ")):
        text = (tmp_path / file).read_text()
        assert quoted in text
        (tmp_path / file).write_text(text.replace(quoted, quoted.replace("tomo", name)))
        with pytest.raises(UserError, match=f"{file}: the tomogram's name .* is a path, not a name; change it there"):
            read_all_coordinates(tmp_path / file)


def _rewritten(path: Path, entry: str, change: dict[str, Any], tensors: dict[str, torch.Tensor] | None = None) -> None:
    from safetensors import safe_open

    with safe_open(str(path), "pt") as opened:
        header = json.loads(opened.metadata()[entry])
    for name, value in change.items():
        *above, last = name.split(".")
        node = header
        for part in above:
            node = node[int(part) if part.isdecimal() else part]
        node[last] = value
    save_file({**{k: v.clone() for k, v in load_file(path).items()}, **(tensors or {})}, path, {entry: json.dumps(header)})


@pytest.mark.parametrize(
    "change",
    [
        {"network.widths": [4, 5, 6, 8]}, {"network.widths": [3000] * 5}, {"network.widths": [10**9] * 5}, {"network.widths": "wide"},
        {"network.head": -1}, {"network.head": 12.5}, {"network.embedding_size": 10**12}, {"network.own_statistics": "x"},
        {"network.own_statistics": float("nan")}, {"network.usual_within": -1}, {"network": []}, {"format": "other"}, {"training": 5},
    ],
)  # fmt: skip
def test_a_card_of_another_network_than_the_weights_is_refused_before_anything_is_allocated(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    save_model(tmp_path / "m.safetensors", tiny_network(), {})
    _rewritten(tmp_path / "m.safetensors", "card", change)
    with pytest.raises(UserError, match=r"m.safetensors: not a tomotwin model file .*; give one that `tomotwin train` wrote"):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e20])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    network = tiny_network()
    save_model(tmp_path / "m.safetensors", network, {})
    weight = network.state_dict()["head.1.bias"].clone()
    weight[3] = value
    _rewritten(tmp_path / "m.safetensors", "card", {}, {"head.1.bias": weight})
    with pytest.raises(UserError, match=r"head.1.bias holds values that are no numbers"):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("change", "tensors"),
    [
        ({"targets.0.diameter_A": float("nan")}, {}), ({"targets.0.diameter_A": "wide"}, {}), ({"targets.0.diameter_A": -5}, {}),
        ({"targets.0.name": 5}, {}), ({"targets.0.name": "../x"}, {}), ({"targets.1.name": "a"}, {}), ({"targets.0.threshold": "high"}, {}),
        ({"targets.0.threshold": float("inf")}, {}), ({"targets": {}}, {}), ({"model_hash": None}, {}), ({"targets.0.floating": "yes"}, {}),
        ({}, {"prototypes.0": torch.ones(2, 31)}), ({}, {"prototypes.1": torch.ones(32)}), ({}, {"space.matrix": torch.ones(31, 32)}),
        ({}, {"space.matrix": torch.full((32, 32), float("nan"))}), ({}, {"space.centre": torch.ones(32, dtype=torch.int64)}),
        ({}, {"background": torch.ones(3, 5)}), ({}, {"prototypes.0": torch.ones(0, 32)}),
    ],
)  # fmt: skip
def test_references_are_not_believed(tmp_path: Path, change: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    axes = np.eye(32, dtype=np.float32)
    targets = (Target("a", axes[:2], 100.0, 0.4), Target("b", axes[2:4], 100.0))
    ReferenceSet(targets, "hash").save(tmp_path / "r.safetensors")
    _rewritten(tmp_path / "r.safetensors", "references", change, tensors)
    with pytest.raises(UserError, match=r"r.safetensors: .* make one with `tomotwin reference`"):
        load_references(tmp_path / "r.safetensors")


@pytest.mark.parametrize(
    ("counters", "parts"),
    [
        ({"step": None}, "[]"), ({"step": "x"}, "[]"), ({"step": -1}, "[]"), ({"best": "x"}, "[]"), ({"best": {"a": "b"}}, "[]"),
        ({"schedule": 3}, "[]"), ({"schedule": {"factor": 0}}, "[]"), ({"seconds": float("nan")}, "[]"), ({"n_averaged": 1.5}, "[]"),
        ({}, '["../../x"]'), ({}, '["last.1.1.safetensors/../../x"]'), ({}, '"abc"'), ({}, "{"), ({}, "[5]"), ({}, '["/etc/passwd"]'),
    ],
)  # fmt: skip
def test_a_training_state_is_not_believed(tmp_path: Path, counters: dict[str, Any], parts: str) -> None:
    known = {"step": 3, "particles": 5, "seconds": 1.0, "n_averaged": 2, "best": {"step": 1.0}}
    write_state(tmp_path, {"network.a": torch.ones(3)}, known)
    assert read_state(tmp_path)
    metadata = {"counters": json.dumps({**known, **counters}), "parts": parts}
    save_file({"network.a": torch.ones(3)}, tmp_path / "last.safetensors", metadata)
    with pytest.raises(UserError, match=r"last.safetensors: not a training state.*; give another --out folder"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, '{"version": 1}', '{"version": "1", "clusters": []}', '{"version": 1, "clusters": {}}', "\xff", "null",
        '{"version": 1, "clusters": [{"name": "../up"}]}', '{"version": 1, "clusters": [{"name": "a\\nb\\u0000c"}]}',
        '{"version": 1, "clusters": [{"name": "a", "add": ["x"]}]}', '{"version": 1, "clusters": [{"name": "a", "from": "cluster_01"}]}',
        '{"version": 1, "clusters": [{"name": "a", "add": [1e300]}]}', '{"version": 1, "clusters": [{"name": "a", "remove": [-1]}]}',
    ],
)  # fmt: skip
def test_a_selection_is_not_believed(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"s.json: not a selection .*; it looks like"):
        read_selection(tmp_path / "s.json")


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 50_000, "training = 5", "[training]\nsteps = 1e400", "[training]\nlearning_rate = nan", "[training]\nlearning_rate = inf",
        "[training]\nseed = 99999999999999999999", "[stream]\nshape = [100000, 100000, 100000]", "[validation]\nshape = [9, 9, 999999]",
        "[training]\nworkers = 1000000", "\udcff", f"[training]\nsteps = {'9' * 5000}",
    ],
)  # fmt: skip
def test_settings_are_not_believed(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"^\S.*$"):
        read_settings(tmp_path / "s.toml", TrainingPlan())


@pytest.mark.parametrize(
    ("shape", "dtype", "length"),
    [
        ((100_000, 100_000, 1000), "|u1", 100), ((3, 3, 3), "<f8", 216), ((3, 3), "|u1", 9), ((3, 3, 3), "|O", 27), ((3, 3, 3), "|u1", 20),
        ((0, 3, 3), "|u1", 0), ((-3, 3, 3), "|u1", 27),
    ],
)  # fmt: skip
def test_no_array_of_a_library_is_allocated_by_what_its_header_says(tmp_path: Path, shape: tuple[int, ...], dtype: str, length: int) -> None:
    import struct
    import zipfile

    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    entry = {"id": "x", "name": "x", "mass_kDa": 1.0, "diameter_A": 9.0, "voxel_size_A": 5.0, "sigma_A": 4.0, "da_per_grey": 1.0}
    entry |= {"source": "s", "licence": "l"}
    (tmp_path / "l.json").write_text(json.dumps({"entries": [entry]}))
    with zipfile.ZipFile(tmp_path / "l.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode() + bytes([7]) * length)
    with pytest.raises(UserError, match=r"l.npz: not a density library .*; make one with `tomotwin library build`"):
        load_library(tmp_path / "l.npz")
