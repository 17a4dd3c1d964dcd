"""Put a trained model into the package, with its measured figures in the card.

Run: python benchmarks/release.py TRAINED/model.safetensors heldout.json trained.json ...
The JSON files are what `benchmarks/accuracy.py --model TRAINED/model.safetensors --group GROUP --out GROUP.csv` wrote.

     python benchmarks/release.py TRAINED/model.safetensors --start START.safetensors --share 0.7 --own-statistics 0.5 --out BETWEEN.safetensors
writes the model that lies so far from the one that the training started from to the trained one, with that share of a tomogram's own
statistics (by default the trained one's).

     python benchmarks/release.py released --usual-statistics 100 --usual-within 0.025 --out RECALIBRATED.safetensors
writes the same weights with the statistics that its batch norms have in so many mini-tomograms taken as most are, where it kept averages
over all sorts of them; a tomogram's own count from that distance on. Both can be asked for at once.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from itertools import islice
from pathlib import Path

from tomotwin_core.embedding.dense import sampled_pieces
from tomotwin_core.model import EmbeddingNetwork, load_model, save_model
from tomotwin_core.model.checkpoint import RELEASED_MODEL, weights_hash
from tomotwin_core.model.statistics import suited, with_share
from tomotwin_core.model.widening import between
from tomotwin_core.structures.library import load_library
from tomotwin_core.training.stream import MiniTomogramStream, StreamSettings

# Of the mini-tomograms whose statistics are taken.
_SEED = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a file, or released")
    parser.add_argument("figures", nargs="*", type=Path, metavar="GROUP.json")
    parser.add_argument(
        "--demo", type=Path, metavar="scores.csv", help="the table that `make demo` wrote with this model"
    )
    parser.add_argument("--note", default="", help="how it was trained, where the command alone does not tell")
    parser.add_argument("--out", type=Path, default=RELEASED_MODEL)
    parser.add_argument("--start", help="the model that the training started from")
    parser.add_argument("--share", type=float, default=1.0, help="of the way from the start to the trained one")
    parser.add_argument("--usual-statistics", type=int, default=0, metavar="N", help="of so many mini-tomograms")
    parser.add_argument("--own-statistics", type=float, metavar="SHARE", help="of a tomogram, in what is written")
    parser.add_argument("--usual-within", type=float, metavar="DISTANCE", help="beyond which a tomogram's own statistics count")
    options = parser.parse_args()
    made = options.start or options.usual_statistics or (options.own_statistics, options.usual_within) != (None, None)
    if made and options.out == RELEASED_MODEL:
        parser.error("give --out, too; what is written is not measured yet and no release")
    model = load_model(options.model)
    kept = {k: v for k, v in model.card.items() if k not in ("format", "network", "hash", "figures")}
    if made:
        network = model.network
        if options.start:
            start = load_model(options.start)
            network = between(start.network, network, options.share, model.card["training"]["settings"]["training"]["seed"])
            kept["between"] = {"start": start.hash, "end": model.hash, "share": options.share}
        if options.usual_statistics:
            network = with_usual_statistics(network, options.usual_statistics)
            kept["usual_statistics"] = {"model": model.hash, "mini_tomograms": options.usual_statistics, "seed": _SEED}
        network = with_share(network, options.own_statistics, options.usual_within)
        save_model(options.out, network, kept)
        print(options.out, weights_hash(network))
        return
    figures = {}
    for path in options.figures:
        measured = json.loads(path.read_text())
        if measured["model"] != model.hash:
            raise SystemExit(f"{path}: was measured with model {measured['model']}, not {model.hash}")
        figures[path.stem] = measured
    if options.demo:
        with open(options.demo, newline="") as lines:
            rows = list(csv.DictReader(lines))
        figures["demo"] = {
            "model": model.hash,
            "command": "make demo",
            "species": len(rows),
            "median F1": round(statistics.median(float(r["f1"]) for r in rows), 3),
            "median best possible F1": round(statistics.median(float(r["best_f1"]) for r in rows), 3),
        }
    # The command's own words, not the paths of the machine that it ran on.
    training = kept.pop("training")
    training["command"] = f"tomotwin train --out DIR --steps {training['steps']}"
    training["settings"]["validation"]["folder"] = ""
    if options.note:
        training["note"] = options.note
    save_model(options.out, model.network, {**kept, "figures": figures, "training": training})
    print(options.out, model.hash)


def with_usual_statistics(network: EmbeddingNetwork, count: int) -> EmbeddingNetwork:
    """The network with the mean statistics of mini-tomograms like those of its training, all of them taken as most are."""
    library = load_library()
    stream = MiniTomogramStream(library, library.ids("train"), StreamSettings(usual=1.0, seed=_SEED))
    volumes = islice((mini.volume for pair in stream for mini in pair), count)
    own = suited(with_share(network, 1.0, 0.0), (next(sampled_pieces(v)) for v in volumes)).network
    return with_share(own, network.settings.own_statistics, network.settings.usual_within)


if __name__ == "__main__":
    main()
