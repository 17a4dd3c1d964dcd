"""What *train model* asks: what is learned from and how, and the engine's options out of it."""

import os
from typing import Any, Dict, List

from pyworkflow.protocol import LEVEL_ADVANCED, params

from ..constants import CONTRASTS, DARK
from .model_choice import chosen_model, define_model_params
from .positions_form import define_other_tomograms

ADAPT, SIMULATED, TOMOGRAMS = range(3)
LIBRARY_RELEASED, LIBRARY_OWN, LIBRARY_FILE = range(3)
LOSSES = ["of the recipe", "supcon", "triplet", "multisimilarity", "proxy-anchor", "circle"]
RECIPES = ["tomotwin", "paper"]
FEWEST_POSITIONS, FEWEST_MOLECULES = 5, 4
"""Below which the engine does not adapt, and does not train."""

POSITIONS = f"task != {SIMULATED}"
TRAINS = f"task != {ADAPT}"
OWN = f"task == {SIMULATED} and molecules == {LIBRARY_OWN}"


def define_data_params(form: Any) -> None:
    """Add what is learned from, to the section *Input*."""
    form.addParam(
        "task",
        params.EnumParam,
        choices=["adapt to my particle", "train on simulated tomograms", "train on my tomograms"],
        default=ADAPT,
        important=True,
        label="What to do",
        help="Most users need none of this: the released model tells molecules apart that it has never seen.\n"
        "*adapt to my particle*: for a target that the model does not find well. From a few tens of its positions, in "
        "minutes on a CPU; what the model knew it keeps.\n"
        "*train on simulated tomograms*: a general model, from many structures. A GPU, and hours to days.\n"
        "*train on my tomograms*: from tomograms in which the particles of several kinds are listed, hundreds of them.",
    )
    form.addParam(
        "inputCoordinates",
        params.MultiPointerParam,
        pointerClass="SetOfCoordinates3D",
        allowsNull=True,
        condition=POSITIONS,
        important=True,
        label="Positions",
        help="Centres of the particles. Each set is one kind of particle; of a set that this software picked or simulated each "
        f"group is one. To adapt to a kind at least {FEWEST_POSITIONS} are needed, and 20 to 50 are good; pick them by hand "
        "or choose them in the window of a picking run, wrong ones spoil the model.",
    )
    define_other_tomograms(
        form,
        "Give others where the positions are to be seen in another binning or reconstruction of the same tilt series: best in "
        "that which will be picked in.",
        POSITIONS,
    )
    form.addParam(
        "contrast",
        params.EnumParam,
        choices=CONTRASTS,
        default=DARK,
        display=params.EnumParam.DISPLAY_HLIST,
        condition=POSITIONS,
        label="Macromolecules are",
        help="Contrast of the tomograms: *dark* on a bright background, as is usual, or *bright*.",
    )
    form.addParam(
        "diameter",
        params.FloatParam,
        default=0,
        condition=POSITIONS,
        label="Particle diameter (Å)",
        help="0 takes the diameter that the picking run measured, or the box size with which the positions were picked.",
    )
    form.addParam(
        "allListed",
        params.BooleanParam,
        default=False,
        condition=POSITIONS,
        label="Are all particles listed?",
        help="*Yes* where the positions are all there are of these kinds in these tomograms: everywhere else is then "
        "background to learn from. *No* when in doubt.",
    )
    form.addParam(
        "byGroup",
        params.BooleanParam,
        default=False,
        condition=POSITIONS,
        expertLevel=LEVEL_ADVANCED,
        label="Is each group a kind?",
        help="*Yes* where the group ids of other software's coordinates tell kinds of particles.",
    )
    form.addParam(
        "liveShare",
        params.FloatParam,
        default=0.5,
        condition=f"task == {TOMOGRAMS}",
        label="Share of simulated tomograms",
        help="0 to 0.99: so many steps see simulated tomograms of the released library all the same. They keep the model "
        "general; 0 makes it one for these kinds alone.",
    )
    form.addParam(
        "molecules",
        params.EnumParam,
        choices=["released library", "structures and maps of this project", "library file"],
        default=LIBRARY_RELEASED,
        condition=f"task == {SIMULATED}",
        label="Molecules",
        help="What the simulated tomograms are full of. The more kinds, the more general the model: the released library has "
        "some hundreds. A library file (.npz) is what `tomotwin library build` makes of a folder of structures.",
    )
    form.addParam(
        "inputMolecules",
        params.MultiPointerParam,
        pointerClass="Volume, SetOfVolumes, AtomStruct, SetOfAtomStructs",
        allowsNull=True,
        condition=OWN,
        important=True,
        label="Structures and maps",
        help=f"Atomic models, and density maps with bright protein as in the EMDB; at least {FEWEST_MOLECULES}, better 50 or "
        "more. They should be up to 340 Å across.",
    )
    form.addParam(
        "heldOut",
        params.IntParam,
        default=0,
        condition=OWN,
        label="Held out",
        help="How many of them, about, are never trained on. On these the validation measures how well the model does with "
        "molecules that it has not seen; a tenth to a fifth where there are many.",
    )
    form.addParam(
        "libraryFile",
        params.FileParam,
        allowsNull=True,
        condition=f"task == {SIMULATED} and molecules == {LIBRARY_FILE}",
        label="Library file (.npz)",
        help="As `tomotwin library build` writes it.",
    )


def define_training_params(form: Any) -> None:
    """Add the section *Training* to a form."""
    form.addSection(label="Training")
    form.addParam(
        "fromModel",
        params.BooleanParam,
        default=True,
        condition=TRAINS,
        label="Start from a model?",
        help="*Yes* goes on from the weights of a model, and needs far fewer steps. *No* starts from random weights.",
    )
    define_model_params(form, "Model", "The model to start from.", condition=f"(task == {ADAPT} or fromModel)")
    form.addParam(
        "adaptSteps",
        params.IntParam,
        default=60,
        condition=f"task == {ADAPT}",
        label="Steps",
        help="Of the fit, a fraction of a second each. 60 is enough for most; try 300 where the particle is still missed.",
    )
    form.addParam(
        "keep",
        params.FloatParam,
        default=3.0,
        condition=f"task == {ADAPT}",
        expertLevel=LEVEL_ADVANCED,
        label="Weight of what it knew",
        help="How much keeping what the model knew weighs against the target; 1 to 10. Lower fits the target more closely and "
        "forgets more of the others.",
    )
    form.addParam(
        "steps",
        params.IntParam,
        default=2000,
        condition=TRAINS,
        label="Steps",
        help="Each sees about 500 particles, and takes a second or more on a CPU. 500 to 2000 to refine a model on a task, "
        "20000 or more for one from random weights. A run that has ended goes on when this is made larger and "
        "the run is continued.",
    )
    form.addParam(
        "recipe",
        params.EnumParam,
        choices=["of this software", "of the paper"],
        default=0,
        display=params.EnumParam.DISPLAY_HLIST,
        condition=TRAINS,
        label="Recipe",
        help="All settings that are not named here. *of this software* is the one that measured best. *of the paper* is "
        "that of TomoTwin's publication: triplet loss with semi-hard mining, its augmentations and schedule.",
    )
    form.addParam(
        "validateEvery",
        params.IntParam,
        default=500,
        condition=TRAINS,
        label="Validate every (steps)",
        help="Every so many steps the model picks in simulated tomograms that are no part of the training, and F1 of each "
        "species is noted. The model that does best is the output. Takes minutes each time; 0 for never.",
    )
    form.addParam(
        "workers",
        params.IntParam,
        default=1,
        condition=TRAINS,
        label="Simulating processes",
        help="Processes that simulate tomograms beside the training. With a GPU give as many as there are cores to spare.",
    )
    form.addParam(
        "learningRate",
        params.FloatParam,
        allowsNull=True,
        default=None,
        condition=TRAINS,
        expertLevel=LEVEL_ADVANCED,
        label="Learning rate",
        help="At its highest. Empty: that of the recipe (0.0015 of this software's). From a model, a third of that or less.",
    )
    form.addParam(
        "loss",
        params.EnumParam,
        choices=LOSSES,
        default=0,
        condition=TRAINS,
        expertLevel=LEVEL_ADVANCED,
        label="Loss",
        help="What makes copies of a molecule alike and others different.",
    )
    form.addParam(
        "species",
        params.IntParam,
        allowsNull=True,
        default=None,
        condition=TRAINS,
        expertLevel=LEVEL_ADVANCED,
        label="Species in a step",
        help="Kinds of molecules in a simulated tomogram; empty: that of the recipe.",
    )
    form.addParam(
        "settingsFile",
        params.FileParam,
        allowsNull=True,
        condition=TRAINS,
        expertLevel=LEVEL_ADVANCED,
        label="Settings file (TOML)",
        help="In place of the recipe; what it says counts where this page would say something too, but for the model to start "
        "from. `tomotwin train --write-settings FILE.toml` writes one with all settings, explained, and a run "
        "of this protocol leaves its own as _training/settings.toml_ in the extra folder.",
    )
    form.addParam(
        "moreSettings",
        params.TextParam,
        default="",
        height=3,
        width=60,
        condition=TRAINS,
        expertLevel=LEVEL_ADVANCED,
        label="More settings",
        help="Any other setting by its name in the settings file, one on a line, such as\nloss.temperature = 0.05\nThey count "
        "over everything else.",
    )
    form.addParam(
        "seed",
        params.IntParam,
        default=0,
        expertLevel=LEVEL_ADVANCED,
        label="Seed",
        help="Of all random numbers: the same seed on the same machine gives the same model.",
    )


# ------------------------------ the engine's options ------------------------------
def more_settings(protocol: Any) -> List[str]:
    """The lines of the field *More settings*."""
    return [line.strip() for line in (protocol.moreSettings.get() or "").splitlines() if line.strip()]


def training_args(protocol: Any) -> List[Any]:
    """Options of ``tomotwin train`` but for data and folder; the settings file, which is its first word, first."""
    args: List[Any] = []
    if protocol.settingsFile.get():
        args += [os.path.abspath(protocol.settingsFile.get())]
    else:
        values: Dict[str, Any] = {
            "--recipe": RECIPES[protocol.recipe.get()],
            "--steps": protocol.steps.get(),
            "--validate-every": protocol.validateEvery.get(),
            "--workers": protocol.workers.get(),
            "--learning-rate": protocol.learningRate.get(),
            "--species": protocol.species.get(),
            "--loss": LOSSES[protocol.loss.get()] if protocol.loss.get() else None,
            "--seed": protocol.seed.get(),
        }
        args += [word for option, value in values.items() if value is not None for word in (option, value)]
    if protocol.fromModel:
        args += ["--from", chosen_model(protocol)]
    return args + [word for line in more_settings(protocol) for word in ("--set", line)]


def adapting_args(protocol: Any) -> List[Any]:
    """Options of ``tomotwin adapt`` but for data and output."""
    args = ["--model", chosen_model(protocol), "--steps", protocol.adaptSteps.get()]
    return args + ["--keep", f"{protocol.keep.get():g}", "--seed", protocol.seed.get()]
