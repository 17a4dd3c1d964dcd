"""Cluster: what is in these tomograms? Proposes species without any reference, from embedded tomograms.

  tomotwin cluster emb/*.zarr --out found                        proposals, ranked, with averages of their members
  tomotwin locate emb/*.zarr --references found/references.safetensors --out picks         every copy of each
  tomotwin cluster found --selection mine.json --out chosen      the same with clusters chosen, merged, named by hand
  tomotwin cluster found --leftover --out rare                   another look at what no cluster took
  tomotwin cluster found --recompute --selection mine.json --out closer       or at the candidates of a selection alone

INPUT are embedded tomograms (.zarr), one or many; or the folder of an earlier call. Tomograms of one sample are clustered
together; those that turn out to have few species in common each by itself, and clusters of the same species joined. Finding
nothing is a result too: clusters.json then says in words why. A selection is what the window saves, or by hand:

  {"version": 1, "clusters": [{"name": "ribosome", "from": ["cluster_01", "cluster_03"], "add": [17], "remove": [4, 9]}]}

What molecules of the library look like to the model is learnt from simulated tomograms once per model, and once more for
tomograms of coarser voxels than 12 A, which takes some minutes, and is kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tomotwin_core.cli.options import add_device, add_seed, require_distinct, use_device, use_seed

if TYPE_CHECKING:
    import numpy as np

    from tomotwin_core.clustering.atlas import Atlas
    from tomotwin_core.clustering.proposals import Proposal
    from tomotwin_core.clustering.run import ClusterSettings
    from tomotwin_core.clustering.scene import Scene

_MOST_FEWEST = 100_000
HELP = "propose species without a reference"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="embedded tomograms, or an earlier --out")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for everything that is written")
    parser.add_argument(
        "--tomograms", type=Path, nargs="+", default=[], metavar="TOMOGRAM",
        help="for the averages, where they are no longer where they were embedded",
    )  # fmt: skip
    group = parser.add_argument_group("from an earlier call")
    group.add_argument("--selection", type=Path, metavar="FILE.json", help="clusters chosen, merged, named, edited")
    group.add_argument(
        "--recompute", action="store_true", help="cluster the candidates of the selection anew, with a map of their own"
    )
    group.add_argument("--leftover", action="store_true", help="cluster what no cluster took: rare species")
    group = parser.add_argument_group("what is looked for")
    group.add_argument(
        "--fewest", type=int, default=6, metavar="N", help="members that a cluster must have (default: 6)"
    )
    group.add_argument(
        "--salience", type=float, default=3.0, metavar="S",
        help="a candidate stands out of the background by so many deviations, or is a particle to the network (default: 3)",
    )  # fmt: skip
    group.add_argument("--model", default="released", metavar="FILE", help="that the tomograms were embedded with")
    group.add_argument("--atlas", type=Path, metavar="FILE", help="what the library looks like to this model, if kept elsewhere")
    group.add_argument("--no-library", action="store_true", help="without it: no names, sizes and kinds, poorer clusters")
    group = parser.add_argument_group("pictures")
    group.add_argument("--fast-map", action="store_true", help="principal components instead of UMAP")
    group.add_argument("--no-pictures", action="store_true", help="neither averages nor galleries")
    add_seed(parser)
    add_device(parser)


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.clustering.candidates import CandidateSettings
    from tomotwin_core.clustering.output import settle
    from tomotwin_core.clustering.run import ClusterSettings
    from tomotwin_core.errors import UserError
    from tomotwin_core.locks import alone_in

    if not 3 <= options.fewest <= _MOST_FEWEST:
        raise UserError(f"--fewest {options.fewest}: a cluster has at least 3 members; {_MOST_FEWEST} at most can be asked for")
    if not 0 <= options.salience <= 100:
        raise UserError(f"--salience {options.salience:g}: give a number of deviations within 0 to 100")
    settings = ClusterSettings(
        CandidateSettings(salience=options.salience), options.fewest, options.fast_map, use_seed(options)
    )
    for path in options.inputs:
        settle(path)
    with alone_in(options.out, ("results",)):
        _run(settings, options)


def _run(settings: ClusterSettings, options: argparse.Namespace) -> None:
    from tomotwin_core.clustering.output import described, read_verdict, write_clusters
    from tomotwin_core.errors import UserError

    folders = [p for p in options.inputs if (p / "clusters.json").is_file()]
    if folders:
        if len(options.inputs) > 1:
            raise UserError(f"{folders[0]}: is the folder of an earlier call; give it alone, or embedded tomograms (.zarr)")
        scene, found, probability = _again(folders[0], settings, options)
    else:
        if options.selection or options.recompute or options.leftover:
            raise UserError(
                f"{options.inputs[0]}: --selection, --recompute and --leftover go with the folder of an earlier `tomotwin cluster`"
            )
        scene, found, probability = _anew(settings, options)
    written = write_clusters(
        options.out, scene, found, probability, not options.no_pictures,
        chosen=bool(options.selection) and not options.recompute, seed=settings.seed, fewest=settings.fewest,
        salience=options.salience, selection=options.selection, inputs=options.inputs,
    )  # fmt: skip
    if written:
        print(described(written))
    print(read_verdict(options.out))
    print(options.out)


def _anew(settings: ClusterSettings, options: argparse.Namespace) -> tuple[Scene, list[Proposal], np.ndarray]:
    from tomotwin_core.clustering.run import proposed, scene_of
    from tomotwin_core.embedding import open_field

    fields = sorted((open_field(path) for path in options.inputs), key=lambda f: f.tomogram)
    require_distinct([f.tomogram for f in fields], "inputs")
    atlas = _atlas(fields[0].model_hash, [f.voxel_size_A for f in fields], options)
    scene = scene_of(fields, atlas, settings, _files(options, [f.tomogram for f in fields]))
    return scene, *proposed(scene, atlas, settings)


def _again(
    folder: Path, settings: ClusterSettings, options: argparse.Namespace
) -> tuple[Scene, list[Proposal], np.ndarray]:
    import numpy as np

    from tomotwin_core.clustering.kinds import signs
    from tomotwin_core.clustering.output import read_members
    from tomotwin_core.clustering.proposals import proposals_of
    from tomotwin_core.clustering.run import mapped, proposed, relocated
    from tomotwin_core.clustering.scene import load_scene
    from tomotwin_core.clustering.selection import read_selection, selected
    from tomotwin_core.errors import UserError

    if options.leftover == bool(options.selection) or (options.recompute and not options.selection):
        raise UserError(f"{folder}: give --selection FILE.json (and --recompute to cluster it anew), or --leftover")
    scene, members = load_scene(folder), read_members(folder)
    scene = relocated(scene, _files(options, [t.name for t in scene.tomograms]))
    atlas = _atlas(scene.model_hash, [t.voxel_size_A for t in scene.tomograms], options)
    _require_one_frame(folder, scene, atlas, options.leftover or options.recompute)
    if options.leftover:
        taken = np.zeros(len(scene), bool)
        taken[scene.rows([i for ids in members.values() for i in ids])] = True
        scene = mapped(scene.select(np.flatnonzero(~taken)), settings)
        return scene, *proposed(scene, atlas, settings)
    wanted = read_selection(options.selection)
    label = selected(scene, wanted, members, options.selection)
    if options.recompute:
        scene = mapped(scene.select(np.flatnonzero(label >= 0)), settings)
        return scene, *proposed(scene, atlas, settings)
    found = proposals_of(scene, label, atlas, signs(scene, atlas), [w.name for w in wanted])
    return scene, found, (label >= 0).astype(float)


def _require_one_frame(folder: Path, scene: Scene, atlas: Atlas | None, anew: bool) -> None:
    """Candidates compared in the library's frame, or without it, stay in theirs; clusters that are only chosen need none."""
    from tomotwin_core.errors import UserError

    if anew and atlas is None and scene.frame.shape[1] != scene.space.matrix.shape[1]:
        raise UserError(f"{folder} was clustered with the library: leave out --no-library here too, or cluster the embeddings without it")
    if atlas is not None and scene.frame.shape != atlas.frame.shape:
        raise UserError(f"{folder} was clustered without the library: give --no-library here too, or cluster the embeddings with it")


def _atlas(model_hash: str, voxel_sizes_A: list[float], options: argparse.Namespace) -> Atlas | None:
    """The atlas of the embeddings' model: given, kept or made now."""
    from tomotwin_core.clustering.atlas import load_atlas
    from tomotwin_core.clustering.atlas_making import detail_of, kept_atlas

    if options.no_library:
        return None
    if options.atlas:
        return load_atlas(options.atlas)
    return kept_atlas(model_hash, options.model, detail_of(voxel_sizes_A), use_device(options))


def _files(options: argparse.Namespace, names: list[str]) -> dict[str, Path]:
    from tomotwin_core.errors import UserError
    from tomotwin_core.tomogram import tomogram_name

    found = {tomogram_name(path): path for path in options.tomograms}
    for name, path in found.items():
        if name not in names:
            raise UserError(f"--tomograms {path}: is none of the embedded tomograms ({', '.join(names)})")
        if not path.is_file():
            raise UserError(f"--tomograms {path}: no such file")
    return found
