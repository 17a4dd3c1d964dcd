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

@article{Roseman2003,
  title   = {Particle finding in electron micrographs using a fast local correlation algorithm},
  author  = {Roseman, Alan M.},
  journal = {Ultramicroscopy},
  volume  = {94},
  number  = {3-4},
  pages   = {225--236},
  year    = {2003},
  doi     = {10.1016/S0304-3991(02)00333-9},
  url     = {https://doi.org/10.1016/S0304-3991(02)00333-9}
}

@article{McInnes2018,
  title   = {UMAP: Uniform Manifold Approximation and Projection},
  author  = {McInnes, Leland and Healy, John and Saul, Nathaniel and Großberger, Lukas},
  journal = {Journal of Open Source Software},
  volume  = {3},
  number  = {29},
  pages   = {861},
  year    = {2018},
  doi     = {10.21105/joss.00861},
  url     = {https://doi.org/10.21105/joss.00861}
}

@inproceedings{Ioffe2006,
  title     = {Probabilistic Linear Discriminant Analysis},
  author    = {Ioffe, Sergey},
  booktitle = {Computer Vision -- ECCV 2006},
  volume    = {3954},
  pages     = {531--542},
  year      = {2006},
  doi       = {10.1007/11744085_41},
  url       = {https://doi.org/10.1007/11744085_41}
}

@article{Grant2015,
  title   = {Measuring the optimal exposure for single particle cryo-EM using a 2.6 Å reconstruction of rotavirus VP6},
  author  = {Grant, Timothy and Grigorieff, Nikolaus},
  journal = {eLife},
  volume  = {4},
  pages   = {e06980},
  year    = {2015},
  doi     = {10.7554/eLife.06980},
  url     = {https://doi.org/10.7554/eLife.06980}
}

@article{Hagen2017,
  title   = {Implementation of a cryo-electron tomography tilt-scheme optimized for high resolution subtomogram
             averaging},
  author  = {Hagen, Wim J. H. and Wan, William and Briggs, John A. G.},
  journal = {Journal of Structural Biology},
  volume  = {197},
  number  = {2},
  pages   = {191--198},
  year    = {2017},
  doi     = {10.1016/j.jsb.2016.06.007},
  url     = {https://doi.org/10.1016/j.jsb.2016.06.007}
}
"""
