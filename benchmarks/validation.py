"""Validate model files as a training validates itself, with given shares of a tomogram's own statistics.

The validation tomograms of `tomotwin train` (ten species trained on, ten never seen, seed 4711) are simulated into --work once. For
each model and share: median F1 and mean best possible F1 of the seen and the unseen species. A share counts for usual tomograms, too;
without one they count as the model says.

Run: python benchmarks/validation.py MODEL.safetensors ... --work DIR --shares 0 0.5 0.75 1
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tomotwin_core.model import load_model
from tomotwin_core.model.statistics import with_share
from tomotwin_core.structures.library import load_library
from tomotwin_core.training.settings import ValidationSettings
from tomotwin_core.training.validation import open_validation, simulate_validation, summary, validate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="model files, or released")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--shares", type=float, nargs="+", default=[None], help="of own statistics (default: the model's way)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    library, settings = load_library(), ValidationSettings()
    trained, folder = library.ids("train"), options.work / "validation"
    simulate_validation(folder, library, sorted(trained), settings, options.device)
    tomograms = open_validation(folder, options.work / "cache")
    print(f"{'model':>24} {'share':>7}  seen: median F1 (mean best)   unseen")
    for name in options.models:
        model = load_model(name)
        for share in options.shares:
            network = model.network if share is None else with_share(model.network, share, 0.0)
            found = summary(validate(network, tomograms, trained, settings.examples, device=options.device))
            seen, unseen = (
                f"{found[f'median_f1_{group}']:.2f} ({found[f'mean_best_f1_{group}']:.3f})" for group in ("seen", "unseen")
            )
            print(f"{Path(name).stem:>24} {'its way' if share is None else f'{share:.2f}':>7}  {seen:27} {unseen}", flush=True)


if __name__ == "__main__":
    main()
