"""Selections: which clusters are wanted, under which names, with what added and removed.

Written by the window, by the protocol's form or by hand, so that a session can be repeated and a batch can reuse it:

    {"version": 1, "clusters": [{"name": "ribosome", "from": ["cluster_01", "cluster_03"], "add": [17], "remove": [4, 9]}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tomotwin_core.checked import Count, Name, Schema, Tuple, checked, read_json
from tomotwin_core.clustering.scene import Scene
from tomotwin_core.errors import UserError

_VERSION = 1


_LOOKS = (
    'it looks like {"version": 1, "clusters": [{"name": "ribosome", "from": ["cluster_01"], "add": [], "remove": []}]}'
)


class _Cluster(Schema):
    name: Name
    sources: Annotated[tuple[str, ...], Tuple, Field(alias="from")] = ()
    add: Annotated[tuple[Count, ...], Tuple] = ()
    remove: Annotated[tuple[Count, ...], Tuple] = ()


class _Selection(Schema):
    version: Literal[1]
    clusters: list[_Cluster]


@dataclass(frozen=True)
class Wanted:
    """A cluster: `sources` are names of earlier ones, `add` and `remove` candidates' numbers."""

    name: str
    sources: tuple[str, ...] = ()
    add: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()


def read_selection(path: Path) -> list[Wanted]:
    """Read a selection; UserError in one sentence for what is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a selection (.json) as the window saves it")
    content = read_json(path, "a selection", _LOOKS)
    version = content.get("version") if isinstance(content, dict) else None
    if type(version) is int and version != _VERSION:
        raise UserError(f"{path}: a selection of version {version}; this software reads version {_VERSION}")
    wanted = [Wanted(c.name, c.sources, c.add, c.remove) for c in checked(_Selection, content, path, "a selection", _LOOKS).clusters]
    names = [w.name for w in wanted]
    for name in names:
        if name.startswith(".") or name == "none":
            raise UserError(f"{path}: {name!r} cannot be a cluster's name; give one without slashes")
        if names.count(name) > 1:
            raise UserError(f"{path}: two clusters are called {name}; name them apart")
    return wanted


def selected(scene: Scene, wanted: list[Wanted], clusters: Mapping[str, list[int]], path: Path) -> np.ndarray:
    """The group of each candidate (n,), -1 for none, numbered as the selection lists them.

    clusters : members of the earlier clusters by name.  A candidate that two entries claim goes to the later one.
    """
    label = np.full(len(scene), -1)
    for index, entry in enumerate(wanted):
        ids: list[int] = []
        for source in entry.sources:
            if source not in clusters:
                raise UserError(f"{path}: {entry.name} is made from {source}, but there are only {', '.join(clusters) or 'none'}")
            ids += clusters[source]
        ids = [i for i in [*ids, *entry.add] if i not in set(entry.remove)]
        scene.rows(entry.remove)  # a number that is none is a mistake there too
        if not ids:
            raise UserError(f"{path}: {entry.name} has no member left; give it clusters (from) or candidates (add)")
        label[scene.rows(ids)] = index
    return label
