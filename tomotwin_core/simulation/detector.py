"""Detectors: how much of an image's detail is recorded, and how noisy.

The modulation transfer function MTF(f) is what is left of the contrast at a spatial frequency f (cycles per physical
pixel), the detective quantum efficiency DQE(f) what is left of the squared signal-to-noise ratio. The noise power
follows from both: NPS(f) = electrons * MTF(f)^2 / DQE(f) (McMullan et al. 2009, Ultramicroscopy 109, 1126).

MTF is the form of Rullgård et al. (2011, J. Microsc. 243, 234): a / (1 + alpha f^2) + b / (1 + beta f^2) + c. A camera
that counts puts each electron into one pixel, so its noise is nearly white (Ruskin, Yu and Grigorieff 2013, J. Struct.
Biol. 184, 385) and DQE(f) = DQE(0) MTF(f)^2. One that integrates spreads each electron as it spreads the image:
the noise is blurred too. `noise_blur` says how far: NPS(f) = MTF(f)^(2 noise_blur).

The parameters below give the published fall of the DQE from 0 to the Nyquist frequency at 300 kV to within about 0.05;
cameras of one kind differ by as much. DQE(0) is a setting of the acquisition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")


@dataclass(frozen=True)
class Detector:
    """MTF(f) = a / (1 + alpha f^2) + b / (1 + beta f^2) + (1 - a - b); noise_blur 0 (white noise) to 1 (blurred as the
    image is)."""

    alpha: float = 0.0
    a: float = 1.0
    beta: float = 0.0
    b: float = 0.0
    noise_blur: float = 0.0

    def mtf(self, frequency: Array) -> Array:
        """Contrast left at frequencies in cycles per physical pixel."""
        square = frequency**2
        return self.a / (1 + self.alpha * square) + self.b / (1 + self.beta * square) + (1 - self.a - self.b)

    def noise_amplitude(self, frequency: Array) -> Array:
        """Square root of NPS(f) / NPS(0)."""
        return self.mtf(frequency) ** self.noise_blur

    def dqe(self, frequency: Array) -> Array:
        """DQE(f) / DQE(0) = MTF^2 / NPS."""
        return (self.mtf(frequency) / self.noise_amplitude(frequency)) ** 2


DetectorName = Literal["ideal", "K2", "K3", "Falcon4i", "Falcon2", "TEM-Simulator"]
DETECTORS: dict[DetectorName, Detector] = {
    # Neither blur nor a fall of the DQE.
    "ideal": Detector(),
    # Counting: DQE(Nyquist) / DQE(0) = 0.44 (Ruskin et al. 2013; McMullan et al. 2014, Ultramicroscopy 147, 156).
    "K2": Detector(alpha=2.0),
    # Counting: 0.61 and 0.53 by the manufacturers' data sheets.
    "K3": Detector(alpha=1.1),
    "Falcon4i": Detector(alpha=1.5),
    # Integrating: 0.40, with an MTF of 0.40 there (McMullan et al. 2014).
    "Falcon2": Detector(alpha=6.0, noise_blur=0.5),
    # The detector that TEM-Simulator comes with (Rullgård et al. 2011), as in the paper's training set: flat DQE.
    "TEM-Simulator": Detector(alpha=10.0, a=0.7, beta=40.0, b=0.2, noise_blur=1.0),
}
