"""From picks to a structure: how each particle lies, and the boxes cut out around them.

    templates.py   a molecule imaged as the tomogram was, in any orientation
    orienting.py   orientation and centre of each pick by a constrained search about it
    cutting.py     subtomograms, the missing wedge of each tomogram, and the STAR file that RELION averages them by

    oriented = orient(open_tomogram("TS_01.mrc"), picks, load_density("pdb:1aon"), acquisition)
    cut([(open_tomogram("TS_01.mrc"), oriented)], "boxes", box_vox=48, tilts_deg=(-60.0, 60.0))

The shell correlation of averages is in evaluation/resolution.py.
"""
