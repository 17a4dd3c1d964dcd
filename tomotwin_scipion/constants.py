"""Names shared by the plugin: configuration variables, engine defaults, output names."""

ENGINE_VERSION = "1.0.0"
"""Version of the engine that the plugin's installer puts into an environment of its own."""

NAME = "TomoTwin"
"""How Scipion calls the plugin."""

DISTRIBUTION = "tomotwin-scipion"
"""Name of the Python distribution that carries plugin and engine."""

# Configuration variables. scipion-em-tomotwin, the wrapper of the original program, already uses
# TOMOTWIN_MODEL and TOMOTWIN_ENV_ACTIVATION; both plugins can be installed at once, so these are others.
TOMOTWIN_BIN = "TOMOTWIN_BIN"
TOMOTWIN_ENGINE_ACTIVATION = "TOMOTWIN_ENGINE_ACTIVATION"
TOMOTWIN_ENGINE_ENVIRONMENT = "TOMOTWIN_ENGINE_ENVIRONMENT"
TOMOTWIN_ENGINE_HOME = "TOMOTWIN_ENGINE_HOME"
TOMOTWIN_ENGINE_MODEL = "TOMOTWIN_ENGINE_MODEL"
TOMOTWIN_ENGINE_PIP = "TOMOTWIN_ENGINE_PIP"
TOMOTWIN_ENGINE_PYTHON = "TOMOTWIN_ENGINE_PYTHON"
TOMOTWIN_ENGINE_SOURCE = "TOMOTWIN_ENGINE_SOURCE"
TOMOTWIN_ENGINE_TORCH = "TOMOTWIN_ENGINE_TORCH"

ENGINE_PACKAGE = "tomotwin_engine"
"""Name of the engine in Scipion's installer (which wants no hyphen in it)."""

OLDEST_ENGINE_PYTHON = (3, 11)
"""The engine needs at least this Python; the plugin needs 3.8."""

RELEASED_MODEL = "released"
"""What the engine's option ``--model`` takes for the weights shipped with it."""

MODEL_VOXEL_SIZE_A = 10.0
"""Voxel size at which the model looks at a tomogram, in A; the engine rescales to it."""

MODEL_WINDOW_VOXELS = 37
"""Edge of the window the model looks at, in voxels of `MODEL_VOXEL_SIZE_A`."""

SMALLEST_VOXEL_SIZE_A = 1.0
LARGEST_VOXEL_SIZE_A = 45.0

# Indices of the choices "contrast" in the forms.
DARK = 0
BRIGHT = 1
CONTRASTS = ["dark", "bright"]

BOX_ROOM = 1.5
"""Box sizes are so many particle diameters, as extraction and averaging want them."""

LOWEST_LISTED_SCORE = 0.2
"""The engine lists candidates down to this similarity unless asked for lower ones."""

OUTPUT_EMBEDDINGS = "Embeddings"
OUTPUT_COORDINATES = "output3DCoordinates"
OUTPUT_TOMOGRAMS = "Tomograms"
OUTPUT_TILT_SERIES = "TiltSeries"
OUTPUT_NOISE_FREE = "NoiseFreeTomograms"
OUTPUT_LABELS = "Labels"
OUTPUT_REFERENCES = "References"
OUTPUT_MASKS = "TomoMasks"
OUTPUT_SUBTOMOGRAMS = "SubTomograms"
OUTPUT_MODEL = "Model"
OUTPUT_RIGHT = "rightPicks"
OUTPUT_FALSE = "falsePicks"
OUTPUT_MISSED = "missedParticles"
OUTPUT_AVERAGES = "Averages"
