"""All settings of a training run, and the recipes: sets of them under a name.

`TrainingPlan` is what a TOML file of `tomotwin train` holds, a table for each of its parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tomotwin_core.errors import UserError
from tomotwin_core.model.network import WINDOW, NetworkSettings
from tomotwin_core.training.stream import StreamSettings

LOSSES = ("supcon", "triplet", "multisimilarity", "proxy-anchor", "circle")
MINERS = ("auto", "none", "semihard", "hard", "all", "multisimilarity")


@dataclass(frozen=True)
class TrainingSettings:
    """How the weights are found.

    steps : length of the run; a step sees one pair of mini-tomograms.
    optimizer : adamw or adam.
    learning_rate : at its highest.
    weight_decay : of the optimiser.
    schedule : cosine (warm-up, then down to a hundredth) or plateau (times plateau_factor when the loss stops falling).
    warmup : steps of rising learning rate.
    plateau_every : steps whose mean loss is one look of the plateau schedule.
    plateau_patience : looks without a better loss before the learning rate falls.
    plateau_factor : by which it falls.
    particleness_weight : of the second output's loss beside the metric loss; 0 leaves it untrained.
    clip : largest norm of a step's gradient.
    ema_decay : of the averaged weights, which are the model; 0 takes the weights as they are.
    reuse : how often a simulated pair is seen, each time turned and cut anew.
    buffer : pairs kept for that.
    workers : processes that simulate; 0 simulates in turn with the training, on the GPU where there is one.
    precision : float32, bfloat16, or auto: bfloat16 on a GPU.
    checkpoint_every : steps between two checkpoints.
    log_every : steps that one line of the log is the mean of.
    seed : of all random numbers.
    """

    steps: int = 2000
    optimizer: str = "adamw"
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warmup: int = 60
    plateau_every: int = 20
    plateau_patience: int = 50
    plateau_factor: float = 0.5
    particleness_weight: float = 0.2
    clip: float = 5.0
    ema_decay: float = 0.99
    reuse: int = 3
    buffer: int = 12
    workers: int = 1
    precision: str = "auto"
    checkpoint_every: int = 50
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        _within("training", self, steps=(1, None), workers=(0, 1024), seed=(0, 2**32 - 1), reuse=(1, None), buffer=(1, None))
        _within("training", self, checkpoint_every=(1, None), log_every=(1, None), plateau_every=(1, None))
        _within("training", self, warmup=(0, None), plateau_patience=(1, None), plateau_factor=(0.01, 0.99))
        _within("training", self, learning_rate=(1e-9, 1), weight_decay=(0, 1), ema_decay=(0, 0.999999))
        _within("training", self, particleness_weight=(0, 100), clip=(1e-6, None))
        _one_of("training", self, optimizer=("adamw", "adam"), schedule=("cosine", "plateau"))
        _one_of("training", self, precision=("auto", "float32", "bfloat16"))


@dataclass(frozen=True)
class LossSettings:
    """What makes copies of a molecule alike and others different.

    name : supcon, triplet (the paper's), multisimilarity, proxy-anchor or circle.
    temperature : of supcon.
    margin : of triplet (in cosine), proxy-anchor and circle; by default 0.539, 0.1 and 0.4.
    scale : alpha of proxy-anchor, gamma of circle, beta of multisimilarity; by default 32, 80 and 50.
    miner : which pairs or triplets count: none (all of them), semihard, hard, all (that violate the miner's margin) or
    multisimilarity; auto is semihard for triplet and none for the others.
    miner_margin : of the miner, in cosine; epsilon of the multisimilarity miner.
    balance : 1 gives every species of a batch the same weight, 0 every window.
    """

    name: str = "supcon"
    temperature: float = 0.1
    margin: float | None = None
    scale: float | None = None
    miner: str = "auto"
    miner_margin: float = 0.734
    balance: float = 0.0

    def __post_init__(self) -> None:
        _one_of("loss", self, name=LOSSES, miner=MINERS)
        _within("loss", self, temperature=(1e-3, 10), miner_margin=(0, 2), balance=(0, 1))
        for name, low, high in (("margin", 0.0, 2.0), ("scale", 0.1, 1000.0)):
            if getattr(self, name) is not None:
                _within("loss", self, **{name: (low, high)})
        if self.miner not in ("auto", "none") and self.name == "proxy-anchor":
            raise UserError("loss.miner: proxy-anchor compares with proxies and takes no miner; choose none")


@dataclass(frozen=True)
class BatchSettings:
    """What a step is made of. The species of a step are those of its mini-tomograms (stream.species).

    instances : windows of one species out of one mini-tomogram at most, drawn at random; 0 takes all.
    anywhere : background windows away from all particles, of each mini-tomogram.
    beside : background windows close beside a particle's centre.
    furniture : windows centred on gold, membranes and filaments at most; 0 takes all.
    windows : shared cuts them from one pass of the first layers over the whole mini-tomogram; single cuts and augments
    each by itself, as the paper does, at many times the cost.
    """

    instances: int = 0
    anywhere: int = 60
    beside: int = 60
    furniture: int = 60
    windows: str = "shared"

    def __post_init__(self) -> None:
        _within("batch", self, instances=(0, None), anywhere=(0, None), beside=(0, None), furniture=(0, None))
        _one_of("batch", self, windows=("shared", "single"))


@dataclass(frozen=True)
class AugmentationSettings:
    """Changes made to windows, each with its probability. With shared windows they are made to the whole mini-tomogram;
    shifts and half turns are then always made, and rotation, which turns the missing wedge along, is not.

    rotation : probability of a rotation by any angle about z.
    dropout : probability of voxels set to the mean.  dropout_ratio : share of the voxels, lowest and highest.
    shift : probability of a shift.  shift_vox : its most along each axis.
    noise : probability of Gaussian noise.  noise_sigma : its highest deviation, of the normalised window's.
    """

    rotation: float = 0.0
    dropout: float = 0.0
    dropout_ratio: tuple[float, float] = (0.05, 0.2)
    shift: float = 0.0
    shift_vox: int = 2
    noise: float = 0.0
    noise_sigma: float = 0.3

    def __post_init__(self) -> None:
        _within("augmentation", self, rotation=(0, 1), dropout=(0, 1), shift=(0, 1), noise=(0, 1))
        _within("augmentation", self, shift_vox=(0, 8), noise_sigma=(0, 10))
        low, high = self.dropout_ratio
        if not 0 <= low <= high < 1:
            raise UserError(f"augmentation.dropout_ratio = {low:g}, {high:g}: give the lower first, within 0 and 1")


@dataclass(frozen=True)
class DataSettings:
    """Tomograms to learn from instead of the live stream of simulated ones.

    folders : written by `tomotwin simulate`, each NAME.mrc with its NAME_truth.star.
    tomograms : files of any voxel size.  positions : coordinates files of what lies in them; what is called background,
    gold, membrane, vesicle, actin, microtubule, filament or carbon there is a negative.
    all_listed : every particle of the targets in these tomograms is listed, so that background is where none is listed;
    else background is only taken close beside the particles listed, where no other can be.
    contrast : dark or bright protein.
    voxel_size_A : of the tomograms, where their headers are wrong or empty.
    diameter_A : of the particles, where the positions have none.
    live_share : share of the steps that take simulated tomograms of the live stream all the same.
    """

    folders: tuple[str, ...] = ()
    tomograms: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    all_listed: bool = False
    contrast: str = "dark"
    voxel_size_A: float | None = None
    diameter_A: float | None = None
    live_share: float = 0.0

    def __post_init__(self) -> None:
        _one_of("data", self, contrast=("dark", "bright"))
        _within("data", self, live_share=(0, 0.999))
        if bool(self.tomograms) != bool(self.positions):
            raise UserError("data.tomograms and data.positions: give both, tomograms and the positions in them")

    @property
    def given(self) -> bool:
        """Whether there are any tomograms beside the live stream."""
        return bool(self.folders or self.tomograms)


@dataclass(frozen=True)
class ValidationSettings:
    """F1 per species on simulated tomograms that are no part of the training.

    every : steps between two validations; 0 for none.
    seen, unseen : how many trained and how many held-out species.
    examples : positions of each species that make its reference.
    shape : z, y, x of a validation tomogram, in voxels of 10 A.
    copies : of each species that are tried in one tomogram.
    per_tomogram : species in one tomogram.
    folder : with the validation tomograms, simulated there if it is empty; by default `validation` beside the model.
    seed : of the validation tomograms.
    """

    every: int = 500
    seen: int = 10
    unseen: int = 10
    examples: int = 5
    shape: tuple[int, int, int] = (64, 160, 160)
    copies: int = 20
    per_tomogram: int = 10
    folder: str = ""
    seed: int = 4711

    def __post_init__(self) -> None:
        _within("validation", self, every=(0, None), seen=(0, None), unseen=(0, None), examples=(1, None))
        _within("validation", self, copies=(2, None), per_tomogram=(1, None), seed=(0, 2**32 - 1))
        if self.every and self.seen < 2:
            raise UserError("validation.seen: give at least 2, the best model is chosen by them")


@dataclass(frozen=True)
class TrainingPlan:
    """Everything a training run is made of."""

    training: TrainingSettings = field(default_factory=TrainingSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    stream: StreamSettings = field(default_factory=StreamSettings)
    data: DataSettings = field(default_factory=DataSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)

    def __post_init__(self) -> None:
        if min(self.stream.shape) < WINDOW + 3:
            raise UserError(
                f"stream.shape = {' '.join(map(str, self.stream.shape))}: a mini-tomogram must be wider than the "
                f"network's window, {WINDOW + 3} voxels at least"
            )
        for name, shape in (("stream", self.stream.shape), ("validation", self.validation.shape)):
            if max(shape) > _LONGEST_SIDE:
                raise UserError(f"{name}.shape = {' '.join(map(str, shape))}: {_LONGEST_SIDE} voxels a side at most")
        if self.stream.species < 2:
            raise UserError(f"stream.species = {self.stream.species}: give at least 2 species for a step")
        _within("stream", self.stream, invented=(0, 1), usual=(0, 1))
        if min(*self.network.widths, self.network.head, self.network.embedding_size) < 1:
            raise UserError("network: widths, head and embedding_size must be 1 or more")
        _within("network", self.network, own_statistics=(0, 1), usual_within=(0, None))
        if self.batch.windows == "shared" and (self.augmentation.rotation or self.augmentation.shift):
            raise UserError(
                "augmentation.rotation and augmentation.shift: shared windows cannot be turned or shifted one by one; "
                'set batch.windows = "single" or these to 0'
            )


def paper_recipe() -> TrainingPlan:
    """The training of the TomoTwin paper (Rice, Wagner et al., Nature Methods 2023) as its public configuration has it:
    triplet loss in cosine similarity with online semi-hard mining, about 105 windows (35 triplets) a step, each
    augmented by itself, Adam, a learning rate that falls at plateaus. No particleness, no averaged weights."""
    return TrainingPlan(
        training=TrainingSettings(
            optimizer="adam",
            learning_rate=5.9e-5,
            weight_decay=0.0,
            schedule="plateau",
            warmup=0,
            particleness_weight=0.0,
            ema_decay=0.0,
        ),
        loss=LossSettings(name="triplet", margin=0.539, miner="semihard", miner_margin=0.734),
        batch=BatchSettings(instances=4, anywhere=3, beside=0, furniture=3, windows="single"),
        augmentation=AugmentationSettings(rotation=0.3, dropout=0.3, shift=0.3, noise=0.9),
        stream=replace(StreamSettings(), species=12, invented=0.0, usual=1.0),
    )


# Of a simulated tomogram of 10 A voxels: 10 micrometres.
_LONGEST_SIDE = 1000
RECIPES = {"tomotwin": TrainingPlan, "paper": paper_recipe}


def _within(table: str, settings: object, **limits: tuple[float, float | None]) -> None:
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if value < low or (high is not None and value > high):
            allowed = f"{low:g} or more" if high is None else f"a value within {low:g} to {high:g}"
            raise UserError(f"{table}.{name} = {value:g}: give {allowed}")


def _one_of(table: str, settings: object, **choices: tuple[str, ...]) -> None:
    for name, known in choices.items():
        if getattr(settings, name) not in known:
            raise UserError(
                f"{table}.{name} = {getattr(settings, name)!r}: choose {', '.join(known[:-1])} or {known[-1]}"
            )
