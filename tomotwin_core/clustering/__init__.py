"""De novo picking: what recurs in tomograms, proposed without any reference.

    candidates.py   the few thousand places where something is, out of millions
    atlas.py        what the library's molecules and junk look like to a model; the space of comparison
    atlas_making.py how that is learnt from simulated tomograms of the same detail, and kept
    scene.py        the candidates of all tomograms in one frame, kept on disk
    manifold.py     the map for the eye (UMAP)
    grouping.py     clusters: a mixture of groups whose spread is known from the atlas; merging and splitting
    views.py        views of one molecule that came out as several groups joined again
    across.py       the same species in several tomograms
    kinds.py        membranes, filaments, gold, ice and edges recognised, and parts of larger particles (parts.py)
    proposals.py    clusters described and ranked
    references.py   clusters as references for `tomotwin locate`
    selection.py    clusters chosen, merged, named and edited by hand
    averaging.py, pictures.py, output.py    what is written for the eye and for the next step
    run.py          all of it together
"""
