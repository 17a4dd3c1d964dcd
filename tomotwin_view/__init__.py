"""The windows on picks and on clusters, and the little that they share with the plugin; for Scipion and for the shell.

    session_base.py     what every session has: tomograms, cross-hair, selection, listeners, undo
    session.py          what is decided about picks: thresholds, decisions; no window needed
    session_file.py     that as a STAR file, and taken up again from one
    cluster_session.py  what is decided about clusters: names, members, which are picked; no window needed
    cluster_files.py    the folder of `tomotwin cluster`, and what is chosen there as a file
    star.py             STAR files, read and written; the plugin's and the engine's too
    slices.py           panel: the tomogram in three orientations, with places in it; scale_bar.py, its bar
    slabs.py            what that panel shows: averaged planes of a volume on disk, read beside the drawing
    histogram.py        panel: the scores of a target, its threshold and the expected false-discovery rate
    scatter.py          panel: the UMAP of the candidates that clusters are made of
    mouse.py            modifier keys, and a line drawn around points
    colours.py          the colours and lines of picks and of members of clusters
    controls.py         Tk controls: list of targets, sliders
    cluster_controls.py the list of clusters, their gallery and their facts in words
    engine_run.py       the engine's command beside a window
    base_window.py      what both windows have: tomograms to turn over, slices, keys, save and load
    window.py           the window on picks
    clusters_window.py  the window on clusters

A panel is drawn into a matplotlib figure, shows one session and changes it; panels know of each other only through
the session, which tells its listeners what has changed. So a further panel is a further listener.

It depends on numpy and matplotlib alone (and Tk, in the windows and controls), imports neither the engine nor Scipion,
and keeps to Python 3.8: Scipion's Python opens it, where the engine may not be installed, and so does `tomotwin view`.
Who opens it brings the volumes (arrays [z, y, x], memory-mapped) and says what saving means.
"""
