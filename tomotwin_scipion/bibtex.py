"""Citations of the plugin; Scipion reads them from this docstring.

@article{Rice2023,
  title   = {TomoTwin: generalized 3D localization of macromolecules in cryo-electron tomograms
             with structural data mining},
  author  = {Rice, Gavin and Wagner, Thorsten and Stabrin, Markus and Sitsel, Oleg
             and Prumbaum, Daniel and Raunser, Stefan},
  journal = {Nature Methods},
  volume  = {20},
  number  = {6},
  pages   = {871--880},
  year    = {2023},
  doi     = {10.1038/s41592-023-01878-z},
  url     = {https://doi.org/10.1038/s41592-023-01878-z}
}
"""
