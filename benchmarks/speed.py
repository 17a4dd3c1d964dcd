"""Dense embedding against the ways it replaces, on the same machine in one run.

    dense        this project's network over a whole block, every second voxel, in the precision that `tomotwin embed` takes here
    float32      the same in float32
    windows      the same network, one 37-voxel window per embedding (same numbers as in float32, checked)
    published    a network of the shape the paper released (five blocks of 64 to 1024 channels, 15 G multiply-adds a window), random weights

`--large` also embeds a 512 x 512 x 200 tomogram of noise at 10 A to disk and reports wall time and peak memory of that whole command.

Run: python benchmarks/speed.py [--large] [--threads 2] [--device cpu]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tomotwin_core.embedding import DenseEmbedder, pick_device
from tomotwin_core.model import STRIDE, WINDOW, load_model
from tomotwin_core.model.network import folded
from tomotwin_core.tomogram import write_mrc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--grid", type=int, default=48, help="embeddings per side of the block (default: 48)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    network = load_model().network
    rng = np.random.default_rng(0)
    side = STRIDE * (options.grid - 1) + WINDOW
    block = rng.standard_normal((side, side, side), dtype=np.float32)
    dense, precision, _ = per_block(DenseEmbedder(network, device), block)
    exact, _, embeddings = per_block(DenseEmbedder(network, device, precision="float32"), block)
    windows_n, published_n = (256, 16) if device.type == "cpu" else (4096, 512)
    corners = rng.integers(0, options.grid, (windows_n, 3))
    windows = torch.from_numpy(np.stack([cut(block, c) for c in corners]))[:, None].to(device)
    single = folded(network).to(device)
    per_window, found = timed(lambda: in_batches(lambda b: single(b)[0], windows), device)
    difference = np.abs(found.cpu().numpy() - embeddings[tuple(corners.T)]).max()
    published = published_network().to(device)
    per_published, _ = timed(lambda: in_batches(published, windows[:published_n]), device)
    n = options.grid**3
    rows = [(f"dense, {precision}", dense / n), ("dense, float32", exact / n), ("windows", per_window / windows_n)]
    rows.append(("published shape", per_published / published_n))
    print(f"{device}, {options.threads} threads; window and dense forms differ by {difference:.1e} at most")
    print(f"{'way':18}{'us per embedding':>18}{'ratio to dense':>16}")
    for name, seconds in rows:
        print(f"{name:18}{seconds * 1e6:18.1f}{seconds / rows[0][1]:16.0f}")
    if options.large:
        large(options)


def per_block(embedder: DenseEmbedder, block: np.ndarray) -> tuple[float, str, np.ndarray]:
    """Seconds for a block, once it is warm, the precision and the embeddings."""
    embedder.embed(block)
    seconds, (embeddings, _) = timed(lambda: embedder.embed(block), embedder.device)
    return seconds, embedder.precision, embeddings


def large(options: argparse.Namespace) -> None:
    """The whole command on a large tomogram, in a process of its own so that its memory can be told."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.mrc"
        volume = np.random.default_rng(0).standard_normal((200, 512, 512), dtype=np.float32)
        write_mrc(path, volume, 10.0)
        del volume
        command = [sys.executable, "-m", "tomotwin_core.cli.main", "embed", str(path), "--out", folder]
        start = time.perf_counter()
        subprocess.run([*command, "--threads", str(options.threads), "--device", options.device], check=True)
        seconds = time.perf_counter() - start
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) - path.stat().st_size
        n = 100 * 256 * 256
        print(
            f"512 x 512 x 200 to disk: {seconds:.0f} s, {seconds / n * 1e6:.1f} us per embedding, {memory:.1f} GB, {size / 1e6:.0f} MB"
        )


def timed(work, device: torch.device):  # type: ignore[no-untyped-def]
    """Seconds and result of a call, the device waited for."""
    start = time.perf_counter()
    with torch.inference_mode():
        result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def in_batches(network, windows: torch.Tensor, size: int = 16) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return torch.cat([network(part) for part in windows.split(size)])


def cut(block: np.ndarray, corner: np.ndarray) -> np.ndarray:
    z, y, x = (STRIDE * int(c) for c in corner)
    return block[z : z + WINDOW, y : y + WINDOW, x : x + WINDOW]


def published_network() -> nn.Module:
    """The shape of the released TomoTwin network (Rice et al. 2023): two 3^3 convolutions per block, one pooling, a dense head."""
    layers: list[nn.Module] = []
    channels = 1
    for index, width in enumerate((64, 128, 256, 512, 1024)):
        for n_in in (channels, width):
            layers += [nn.Conv3d(n_in, width, 3, padding=0 if index else 1), nn.GroupNorm(32, width), nn.LeakyReLU()]
        channels = width
        layers.append(nn.MaxPool3d(2) if index == 0 else nn.Identity())
    layers += [nn.AdaptiveMaxPool3d(2), nn.Flatten(), nn.Linear(8192, 2048), nn.LeakyReLU(), nn.Linear(2048, 2048)]
    layers += [nn.LeakyReLU(), nn.Linear(2048, 32)]
    return nn.Sequential(*layers).eval()


if __name__ == "__main__":
    main()
