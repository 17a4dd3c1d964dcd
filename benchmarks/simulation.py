"""Where the time of the simulation goes.

    python benchmarks/simulation.py                the training stream against the network that it feeds
    python benchmarks/simulation.py --large        a tomogram of the paper's size too: 512 x 512 x 200 voxels of 10 A, 61 tilts,
                                                   12 species x 150 copies with membranes, vesicles and gold

Options: --threads N (default 2), --device cpu or cuda, --pairs N of mini-tomograms (default 4). Beside the time on the
clock stands that of the processor, which does not count what other processes take: on a busy machine it is what to trust.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tomotwin_core.embedding import pick_device
from tomotwin_core.model.network import WINDOW, EmbeddingNetwork, channels_last
from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.building import SampleSettings, build_sample
from tomotwin_core.simulation.experiment import margin_vox
from tomotwin_core.simulation.gridding import TiltGeometry
from tomotwin_core.simulation.microscope import take_tilt_series
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.reconstruction import reconstruct
from tomotwin_core.simulation.sample import crowding
from tomotwin_core.structures import load_library
from tomotwin_core.training.batches import window_batch
from tomotwin_core.training.stream import MiniTomogramStream, StreamSettings

PAPER = ("4v6x", "1dzl", "1eab", "1qvr", "5t4o", "1g3i", "3uwx", "2iy5", "1a9x", "1n2c", "3cf3", "4cr2")
_WINDOWS = 64
_WARM_UP_PAIRS = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    print(f"{device}, {options.threads} threads, load of the machine before: {os.getloadavg()[0]:.1f}")
    stream(options.pairs, device)
    if options.large:
        large(device)


def stream(pairs: int, device: torch.device) -> None:
    """Mini-tomograms and the windows that training takes from them, per second, against a training step's windows."""
    library = load_library()
    items = iter(MiniTomogramStream(library, library.ids("train"), StreamSettings(), str(device)))
    for _ in range(_WARM_UP_PAIRS):  # the turned copies of the molecules that the stream keeps are made
        next(items)
    rng = np.random.default_rng(0)
    start = now()
    minis = [mini for _ in range(pairs) for mini in next(items)]
    per_mini = (now() - start) / len(minis)
    windows = float(np.mean([len(window_batch(mini, rng).label) for mini in minis]))
    network = channels_last(EmbeddingNetwork()).to(device).train()
    single = seconds(device, lambda: step(network, device)) / _WINDOWS
    print(f"mini-tomograms {minis[0].volume.shape}, {windows:.0f} windows each")
    print(f"{'':44}{'by the clock':>14}{'processor':>14}")
    for name, values in (
        ("mini-tomograms made per second", 1 / per_mini),
        ("windows made per second", windows / per_mini),
        (f"windows learnt from, {network.n_parameters / 1e6:.2f} M parameters", 1 / single),
        ("ratio", windows / per_mini * single),
    ):
        print(f"{name:44}{values[0]:14.2f}{values[1]:14.2f}")


def step(network: EmbeddingNetwork, device: torch.device) -> None:
    """Forward and backward pass over a batch of windows."""
    embedded, particleness = network(torch.randn(_WINDOWS, 1, WINDOW, WINDOW, WINDOW, device=device))
    nn.functional.mse_loss(embedded, torch.zeros_like(embedded)).add(particleness.mean()).backward()


def large(device: torch.device) -> None:
    """One tomogram of the paper's size, stage by stage."""
    library = load_library()
    densities = {i: library.density(i) for i in PAPER if i in library.entries}
    densities |= {i: library.density(i) for i in library.ids("heldout")[: 12 - len(densities)]}
    settings = SampleSettings((200, 512, 512), 10.0, 1250.0, 150, occupied=0.5, vesicles=4, membranes=1, gold=10)
    taken = Acquisition()
    rng = np.random.default_rng(1)
    rows: list[tuple[str, NDArray[np.float64]]] = []

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = now()
        result = work()
        wait(device)
        rows.append((name, now() - start))
        return result

    margin = margin_vox(settings)
    molecules = Molecules(densities, settings.voxel_size_A)
    sample = timed("sample", lambda: build_sample(settings, molecules, rng, margin))
    volume = torch.from_numpy(sample.volume).to(device)
    generator = torch.Generator(device=device).manual_seed(1)
    with projecting_timed(device) as projecting:
        series = timed(
            "tilt series",
            lambda: take_tilt_series(volume, settings.voxel_size_A, taken, generator, ice=sample.ice),
        )
    rows[-1:] = [("projection", projecting), ("optics, noise, detector", rows[-1][1] - projecting)]
    timed("reconstruction", lambda: reconstruct(series, taken))
    found = crowding(sample, {n: d.mass_kDa for n, d in densities.items()})
    placed = sum(name in densities for name in sample.names)
    print(
        f"512 x 512 x 200 at 10 A, {len(taken.tilts_deg)} tilts, {placed} of {150 * len(densities)} molecules placed, "
        f"{100 * found.occupied:.0f} % of the ice in bodies, {found.concentration_g_per_L:.0f} g/L, "
        f"nearest neighbours {np.quantile(found.nearest_A, 0.1):.0f} to {np.quantile(found.nearest_A, 0.9):.0f} A"
    )
    print(f"{'':28}{'by the clock':>14}{'processor':>14}")
    for name, spent in [*rows, ("all", np.sum([spent for _, spent in rows], axis=0))]:
        print(f"{name:28}{spent[0]:12.1f} s{spent[1]:12.1f} s")
    print(f"{'peak memory of the process':28}{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:8.1f} GB")


@contextmanager
def projecting_timed(device: torch.device) -> Iterator[NDArray[np.float64]]:
    """Seconds spent in `TiltGeometry.project` while the block runs."""
    original, spent = TiltGeometry.project, np.zeros(2)

    def project(self: TiltGeometry, sample: torch.Tensor) -> torch.Tensor:
        start = now()
        result = original(self, sample)
        wait(device)
        spent[:] += now() - start
        return result

    TiltGeometry.project = project  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        TiltGeometry.project = original  # type: ignore[method-assign]


def seconds(device: torch.device, work: Callable[[], None], times: int = 3) -> NDArray[np.float64]:
    """Of one call by the clock and of the processor, after one to warm up."""
    work()
    wait(device)
    start = now()
    for _ in range(times):
        work()
    wait(device)
    return (now() - start) / times


def now() -> NDArray[np.float64]:
    """Clock and processor time of this process, s."""
    return np.array([time.perf_counter(), time.process_time()])


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
