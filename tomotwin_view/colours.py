"""How picks and members of clusters are drawn: in the colour of their target or cluster, or along the scores, and what is
thrown out differently."""

from typing import Any, List, Tuple

import matplotlib
import numpy as np
from matplotlib.colors import to_rgba_array

from .cluster_session import ClustersSession
from .session import REJECTED as BY_HAND
from .session import PicksSession

Styles = List[Tuple[np.ndarray, Any, float, str]]
"""Of some rows: boolean which of them, their colour or colours, line width in points, and matplotlib's style of line."""

# Okabe and Ito's colours, which the colour-blind tell apart, then some more for many targets; all readable on grey.
TARGETS = (
    "#E69F00",
    "#56B4E9",
    "#00D69B",
    "#F0E442",
    "#3A86FF",
    "#FF5E3A",
    "#FF8AD4",
    "#B8F35B",
    "#C77DFF",
    "#00E5FF",
    "#FFC9A3",
    "#D1495B",
    "#8DFFC1",
    "#A6A6FF",
)
REJECTED = "#FF2D2D"
LEFT_OUT = "#B0B0B0"


def target_colour(target: int) -> str:
    """The colour of a target by its position in the list."""
    return TARGETS[target % len(TARGETS)]


def score_colours(session: PicksSession, scores: np.ndarray, target: int) -> np.ndarray:
    """RGBA (n, 4) of scores of a target, from violet (the lowest of its scores) to yellow (the highest)."""
    own = session.picks.score[session.picks.target == target]
    own = own[np.isfinite(own)]
    low, high = (own.min(), own.max()) if len(own) else (0.0, 1.0)
    share = np.nan_to_num((scores - low) / max(high - low, 1e-9))
    # The dark end of the map would not be seen on a tomogram.
    return np.asarray(matplotlib.colormaps["plasma"](0.3 + 0.7 * np.clip(share, 0, 1)))


def pick_colours(session: PicksSession, rows: np.ndarray) -> np.ndarray:
    """RGBA (n, 4) of the picks with these row numbers."""
    targets = session.picks.target[rows]
    colours = to_rgba_array(TARGETS)[targets % len(TARGETS)]
    if session.colour_by == "score":
        for target in np.unique(targets):
            colours[targets == target] = score_colours(session, session.picks.score[rows[targets == target]], target)
    return colours


def pick_styles(session: PicksSession, rows: np.ndarray) -> Styles:
    """What stays in its colour, rejected dashed in red, left out by a threshold dotted in grey."""
    stays, rejected = session.accepted()[rows], session.decisions[rows] == BY_HAND
    return [
        (stays, pick_colours(session, rows[stays]), 1.6, "-"),
        (rejected, REJECTED, 1.4, "--"),
        (~stays & ~rejected, LEFT_OUT, 1.0, ":"),
    ]


def cluster_colours(session: ClustersSession) -> np.ndarray:
    """RGBA (n, 4) of all candidates in the UMAP: what is picked strongly, what is not faintly, what is in no cluster grey."""
    numbers = [entry.colour % len(TARGETS) for entry in session.entries]
    palette = np.vstack([to_rgba_array(TARGETS)[numbers], to_rgba_array(["#909090"])])
    colours = palette[session.label]
    colours[:, 3] = np.where(session.picked(), 0.95, 0.4)
    if session.this_tomogram_alone:
        colours[session.tomogram != session.current, 3] *= 0.12
    return colours


def cluster_styles(session: ClustersSession, rows: np.ndarray) -> Styles:
    """Members of clusters that are picked in their colour, of others dashed, what is in no cluster dotted in grey; the cluster
    at hand with thick lines."""
    colours = cluster_colours(session)[rows]
    colours[:, 3] = 1.0
    picked, member = session.picked()[rows], session.label[rows] >= 0
    at_hand = member & (session.label[rows] == session.at_hand)
    styles: Styles = [(~member, LEFT_OUT, 1.0, ":")]
    for chosen, line in ((picked, "-"), (member & ~picked, "--")):
        for these, width in ((chosen & ~at_hand, 1.3), (chosen & at_hand, 2.6)):
            styles.append((these, colours[these], width, line))
    return styles
