"""One distribution: the Scipion plugin, and with the extra `engine` what the computing needs."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.egg_info import egg_info

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "tomotwin_core" / "__init__.py").read_text()).group(1)

# What Scipion already has is not listed: the plain install adds nothing to it.
ENGINE = [
    "torch>=2.6",
    "numpy>=1.26",
    "scipy>=1.10",
    "mrcfile>=1.4",
    "starfile>=0.5.8",
    "imodmodel>=0.1.0",
    "pandas",
    "gemmi>=0.6.5",
    "zarr>=3.0",
    "safetensors>=0.4",
    "filelock>=3.13",
    "pydantic>=2.5",
    "scikit-learn>=1.4",
    "threadpoolctl>=3.1",
    "pytorch-metric-learning>=2.5",
    "torch-ctf>=0.3",
    "torch-fourier-filter>=0.2",
    "tqdm>=4.60",
    "matplotlib>=3.7",
    "tifffile>=2023.7",
    "tensorboardX>=2.6",
    "optuna>=4.9",
    "scikit-image>=0.22",
    "umap-learn>=0.5.6",
]


class PluginFirst(egg_info):
    """Scipion's installer takes the first line of top_level.txt for the plugin; sorted, it would be another package."""

    def run(self) -> None:
        super().run()
        listed = Path(self.egg_info) / "top_level.txt"
        listed.write_text("\n".join(sorted(listed.read_text().split(), key="tomotwin_scipion".__ne__)) + "\n")


setup(
    cmdclass={"egg_info": PluginFirst},
    name="tomotwin-scipion",
    version=VERSION,
    description="Find macromolecules in cryo-electron tomograms from one reference or de novo: a Scipion plugin and its engine",
    long_description=(HERE / "README.md").read_text() if (HERE / "README.md").is_file() else "",
    long_description_content_type="text/markdown",
    license="GPL-3.0-or-later",
    python_requires=">=3.8",
    packages=find_packages(
        include=[
            "_tomotwin_scipion",  # the same plugin, first in the list of files: see its docstring
            "tomotwin_core",
            "tomotwin_core.*",
            "tomotwin_scipion",
            "tomotwin_scipion.*",
            "tomotwin_view",
        ]
    ),
    package_data={
        "tomotwin_core": ["structures/data/*", "model/data/*", "clustering/data/*"],
        "tomotwin_scipion": ["protocols.conf", "*.png", "*.sh", "templates/*.json.template"],
    },
    extras_require={
        "engine": ENGINE,
        "scipion": ["scipion-pyworkflow", "scipion-em", "scipion-em-tomo", "scipion-app"],
        "test": [
            "pytest",
            "pytest-xdist",
            "alnfile",
            "mdocfile",
            "dynamotable",
            "torch-reconstruct-tomogram>=0.6",
            "ruff",
            "mypy",
        ],
    },
    entry_points={
        "pyworkflow.plugin": ["tomotwin_scipion = tomotwin_scipion"],
        "console_scripts": ["tomotwin = tomotwin_core.cli.main:main"],
    },
    classifiers=[
        "License :: OSI Approved :: GNU General Public License v3 or later (GPLv3+)",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
)
