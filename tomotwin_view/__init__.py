"""The picking window, and the little that it shares with the plugin; for Scipion and for the shell.

    session.py       what is decided: picks, thresholds, decisions, undo, selection; no window needed
    session_file.py  a session as a STAR file, and taken up again from one
    star.py          the little of the STAR format that this and the plugin need
    slices.py        panel: the tomogram in three orientations, with the picks
    slabs.py         what that panel shows: averaged planes of a volume on disk, read beside the drawing
    histogram.py     panel: the scores of a target, its threshold and the expected false-discovery rate
    colours.py       the colours of picks, by target or by score
    controls.py      the Tk controls: list of targets, sliders
    window.py        the Tk window that puts panels and controls together

A panel is drawn into a matplotlib figure, shows one `PicksSession` and changes it; panels know of each other only through
the session, which tells its listeners what has changed. So a further panel is a further listener.

It depends on numpy and matplotlib alone (and Tk, in window.py and controls.py), imports neither the engine nor Scipion,
and keeps to Python 3.8: Scipion's Python opens it, where the engine may not be installed, and so does `tomotwin view`.
Who opens it brings the volumes (arrays [z, y, x], memory-mapped) and says what saving means.
"""
