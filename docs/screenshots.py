"""Photographs of every form and every viewer of the plugin, in the project that `make demo` makes: `make screenshots`.

    python docs/screenshots.py --demo demo-output --out docs/screenshots [NAME ...]

The demo's project is completed by one small run of each protocol that it has not got; a run that is there is kept.
Then Scipion's own window is opened on a virtual screen, and in it each form, tab by tab, and each viewer on the
outputs that it is made for. With names only the pictures whose file begins with one of them are taken again.

Needed besides the project's environment: Xvfb, openbox, xprop (x11-utils), wmctrl and ImageMagick's import, and a Python
with Tk (on Debian: apt-get install python3-tk xvfb openbox x11-utils wmctrl imagemagick).

The script runs twice, as the demo does: as called, to set up a screen and what Scipion reads when it is imported; and
from there as a process of its own inside that Scipion.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from tomotwin_scipion.demo import PROJECT, finish, prepare, say, scipion_environment

INSIDE = "--inside-scipion"
SCREEN = (1500, 1000)
COLOURS = 96
COLOURFUL = 24
SECONDS_TO_DRAW = 2.0
SECONDS_TO_COMPUTE = 300.0
PROGRAMS = ("Xvfb", "openbox", "xprop", "wmctrl", "import")
FORM_WIDTH = 900
TREE_WIDTH = 390
PLUGIN = "tomotwin_scipion"


def main() -> int:
    """Parse the command line and take the pictures."""
    parser = argparse.ArgumentParser(prog="python docs/screenshots.py", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="beginnings of the pictures to take (default: all)")
    parser.add_argument("--demo", default="demo-output", help="what make demo made (default: %(default)s)")
    parser.add_argument("--out", default="docs/screenshots", help="folder of the pictures (default: %(default)s)")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    demo, out = os.path.abspath(options.demo), os.path.abspath(options.out)
    if options.inside_scipion:
        photograph_all(out, options.names)
        return 0
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        print(
            f"screenshots: error: {', '.join(missing)} not found: apt-get install xvfb openbox x11-utils wmctrl imagemagick"
        )
        return 1
    if not os.path.exists(os.path.join(demo, "scores.csv")):
        print(f"screenshots: error: there is no finished demo in {demo}: run make demo first")
        return 1
    os.makedirs(out, exist_ok=True)
    environment = scipion_environment(os.path.join(demo, "scipion"))
    call = [sys.executable, __file__, "--demo", demo, "--out", out, INSIDE, *options.names]
    with virtual_screen() as display:
        return subprocess.run(call, env={**environment, "DISPLAY": display}).returncode


@contextmanager
def virtual_screen() -> Iterator[str]:
    """An Xvfb with a window manager; gives its display."""
    read, write = os.pipe()
    size = "x".join(map(str, (*SCREEN, 24)))
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", size, "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as pipe:
        display = ":" + pipe.readline().strip()
    manager = subprocess.Popen(["openbox"], env={**os.environ, "DISPLAY": display}, stderr=subprocess.DEVNULL)
    try:
        yield display
    finally:
        for process in (manager, server):
            process.terminate()
            process.wait()


# ------------------------------ the project ------------------------------
def complete(project: Any, wanted: list[str]) -> list[Any]:
    """One run of each protocol of the plugin; those that are missing are made, and launched for a picture that is wanted."""
    from pwem import Domain

    classes = {
        name: value for name, value in Domain.getProtocols().items() if value.__module__.startswith(PLUGIN + ".")
    }
    runs = {run.getClassName(): run for run in project.getRuns(refresh=True)}
    for name, wire in RUNS.items():
        if not is_wanted("viewer_" + short_name(classes[name]()), wanted):
            continue
        made = name not in runs
        run = prepare(project, classes[name], numberOfThreads=1, binThreads=os.cpu_count() or 1)
        if made:
            wire(run, runs)
        say(f"{run.getClassLabel()}")
        finish(project, run)
        runs[name] = run
    labels = {name: value for name, value in classes.items() if value._label}  # bases have none
    return [runs.get(name) or project.newProtocol(value) for name, value in labels.items()]


def is_wanted(name: str, wanted: list[str]) -> bool:
    """Whether a picture of this name, or one that begins with it, is asked for."""
    return not wanted or any(name.startswith(word) or word.startswith(name) for word in wanted)


def point(parameter: Any, run: Any, output: str) -> None:
    """Connect an input with an output."""
    parameter.set(run)
    parameter.setExtended(output)


def wire_mask(run: Any, runs: dict[str, Any]) -> None:
    point(run.inputTomograms, runs["ProtImportTomograms"], "Tomograms")
    run.autoSlab.set(True)


def wire_training(run: Any, runs: dict[str, Any]) -> None:
    """From structures in simulated tomograms, a dozen steps: enough for curves to be drawn, not for a model."""
    from tomotwin_scipion.protocols.training_form import SIMULATED

    run.task.set(SIMULATED)
    run.steps.set(12)
    run.validateEvery.set(6)


def wire_clusters(run: Any, runs: dict[str, Any]) -> None:
    point(run.inputEmbeddings, runs["ProtTwinEmbedTomograms"], "Embeddings")


def wire_simulation(run: Any, runs: dict[str, Any]) -> None:
    """The form's defaults make what the demo made, and so the truth about its tomograms as coordinates."""
    run.writeTiltSeries.set(False)
    run.writeReferences.set(False)


def wire_evaluation(run: Any, runs: dict[str, Any]) -> None:
    point(run.inputPicks, runs["ProtTwinReferencePicking"], "output3DCoordinates")
    point(run.inputTruth, runs["ProtTwinSimulateTomograms"], "output3DCoordinates")


RUNS: dict[str, Callable[[Any, dict[str, Any]], None]] = {
    "ProtTwinCreateMask": wire_mask,
    "ProtTwinSimulateTomograms": wire_simulation,
    "ProtTwinEvaluatePicks": wire_evaluation,
    "ProtTwinClusterPicking": wire_clusters,
    "ProtTwinTrainModel": wire_training,
}
"""Protocols that the demo does not run and that have something to be looked at, and how each gets its input; in order."""


# ------------------------------ the pictures ------------------------------
def photograph_all(out: str, wanted: list[str]) -> None:
    """Open the project in Scipion's window, and photograph it, the forms and the viewers."""
    from pwem import Domain
    from pyworkflow.gui.project import ProjectWindow
    from pyworkflow.project import Manager

    viewers = [one for one in Domain.getViewers().values() if one.__module__.startswith(PLUGIN + ".")]
    if not viewers:  # Scipion goes on without what cannot be imported
        raise RuntimeError(
            "the plugin's viewers could not be loaded: python -c 'import tomotwin_scipion.viewers' says why"
        )
    project = Manager().loadProject(PROJECT)
    os.chdir(project.path)
    runs = complete(project, wanted)
    window = ProjectWindow(project.path)
    camera = Camera(window.root, Path(out), wanted)
    window.root.geometry(f"{SCREEN[0] - 100}x{SCREEN[1] - 200}+0+0")
    window.root.deiconify()
    if camera.wants("project"):
        opened = camera.windows()[-1]
        show_project(window, camera, next(run for run in runs if short_name(run) == "reference_picking"))
        camera.take("project", opened)
    for run in runs:
        # Runs that were made for the sake of a viewer have settings of no use to anyone: shown as the form opens.
        photograph_form(camera, window, project.newProtocol(type(run)) if run.getClassName() in RUNS else run)
    for run in runs:
        photograph_viewers(camera, window, run)
    window.root.destroy()


class Camera:
    """Photographs of windows, by their X identifiers.

    Parameters
    ----------
    root
        The Tk root, whose events are worked off before a picture is taken.
    out
        Folder of the pictures.
    wanted
        Beginnings of the names of pictures to take; all where it is empty.
    """

    def __init__(self, root: Any, out: Path, wanted: list[str]) -> None:
        self.root, self.out, self.wanted = root, out, wanted

    def wants(self, name: str) -> bool:
        """Whether a picture of this name, or one that begins with it, is asked for."""
        return is_wanted(name, self.wanted)

    def windows(self) -> list[str]:
        """Identifiers of the windows on the screen, in the order in which they were opened."""
        self.wait()
        listed = subprocess.run(["xprop", "-root", "_NET_CLIENT_LIST"], capture_output=True, text=True).stdout
        return re.findall(r"0x[0-9a-f]+", listed)

    def wait(self, seconds: float = SECONDS_TO_DRAW) -> None:
        """Let windows draw themselves."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.root.update()
            time.sleep(0.02)

    def take(self, name: str, window: str) -> None:
        """Photograph a window into NAME.png, in few colours to keep the file small."""
        if not self.wants(name):
            return
        end = time.monotonic() + SECONDS_TO_COMPUTE
        while self.computes() and time.monotonic() < end:
            self.wait()
        image = self.photograph(window)
        few = in_few_colours(image)
        file = self.out / f"{name}.png"
        few.save(file, optimize=True)
        say(f"   {file.name}: {few.width} x {few.height}, {file.stat().st_size / 1000:.0f} kB")

    def computes(self) -> bool:
        """Whether a command that a viewer started is still at work."""
        return any(child.status() != psutil.STATUS_ZOMBIE for child in psutil.Process().children())

    def photograph(self, window: str) -> Image.Image:
        """A window as it is now, brought to the front: what lies behind others is not on the screen."""
        subprocess.run(["wmctrl", "-i", "-a", window], check=False)
        self.wait()
        with tempfile.TemporaryDirectory() as folder:
            raw = os.path.join(folder, "raw.png")
            subprocess.run(["import", "-window", window, raw], check=True)
            with Image.open(raw) as image:
                return image.convert("RGB")


def in_few_colours(image: Image.Image) -> Image.Image:
    """An image with a palette: so many greys, and as many colours of what is coloured, be it ever so little."""
    pixels = np.asarray(image).reshape(-1, 3)
    coloured = pixels[np.ptp(pixels, axis=1) > COLOURFUL]
    greys = np.repeat(np.linspace(0, 255, COLOURS).round().astype(np.uint8), 3)
    palette = Image.new("P", (1, 1))
    chosen = Image.fromarray(coloured[None]).quantize(COLOURS).getpalette() if len(coloured) else None
    palette.putpalette([*greys.tolist(), *(chosen or [])[: 3 * COLOURS]])
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def show_project(window: Any, camera: Camera, run: Any) -> None:
    """Open the branches of the protocol tree that lead to the plugin's protocols, and select a run."""
    view = window.getViewWidget()
    tree = view.protTree

    def leads(item: str) -> bool:
        children = tree.get_children(item)
        found = [leads(child) for child in children] if children else ["ProtTwin" in item]
        tree.item(item, open=bool(children) and any(found))
        return any(found)

    for item in tree.get_children():
        leads(item)
    panes = tree
    while panes.winfo_class() != "Panedwindow":
        panes = panes.master
    panes.sash_place(0, TREE_WIDTH, 1)
    view._selectItemProtocol(run)
    for item in view.runsGraphCanvas.items.values():
        item.setSelected(getattr(getattr(item, "node", None), "run", None) == run)
    camera.wait()


def short_name(run: Any) -> str:
    """A protocol's name in the names of files: reference_picking."""
    return run.getClassLabel(prependPackageName=False).replace(" ", "_")


def photograph_form(camera: Camera, window: Any, run: Any) -> None:
    """Each tab of a form as it opens, one picture each."""
    from pyworkflow.gui.form import FormWindow

    name = f"form_{short_name(run)}"
    if not camera.wants(name):
        return
    before = camera.windows()
    form = FormWindow(run.getClassLabel(), run, lambda *args, **kwargs: None, window, disableRunMode=False)
    form.adjustSize()
    form.root.deiconify()
    (opened,) = [one for one in camera.windows() if one not in before]
    notebook = form._sections[0].master
    for number, tab in enumerate(notebook.tabs(), start=1):
        notebook.select(tab)
        fit(form, form._sections[number - 1])
        camera.take(f"{name}_{number}", opened)
    form.root.destroy()


def fit(form: Any, section: Any) -> None:
    """Make a form as high as its tab needs, where the screen allows it."""
    form.root.update()
    frame = section.contentFrame
    rest = form.root.winfo_height() - section.winfo_height()
    height = min(frame.winfo_reqheight() + rest + 40, SCREEN[1] - 60)
    width = max(frame.winfo_reqwidth() + 40, FORM_WIDTH)
    form.root.geometry(f"{min(width, SCREEN[0] - 20)}x{height}+5+5")


def photograph_viewers(camera: Camera, window: Any, run: Any) -> None:
    """Every viewer of the plugin that a run, or one of its outputs, can be looked at with."""
    from matplotlib import pyplot
    from pwem import Domain
    from pyworkflow.viewer import DESKTOP_TKINTER

    seen = set()
    for target in (run, *(output for _, output in run.iterOutputAttributes())):
        for viewer in Domain.findViewers(target, DESKTOP_TKINTER):
            name = f"viewer_{short_name(run)}_{re.sub(r'^Twin|Viewer$', '', viewer.__name__).lower()}"
            if not viewer.__module__.startswith(PLUGIN + ".") or name in seen or not camera.wants(name):
                continue
            seen.add(name)
            before = camera.windows()
            viewer(project=window.project, protocol=run, parent=window).visualize(target)
            camera.wait(3 * SECONDS_TO_DRAW)
            for number, opened in enumerate([one for one in camera.windows() if one not in before]):
                camera.take(name + (f"_{number + 1}" if number else ""), opened)
            pyplot.close("all")
            for child in window.root.winfo_children():
                if child.winfo_class() == "Toplevel":
                    with suppress(Exception):  # some are gone with their figure
                        child.destroy()


if __name__ == "__main__":
    sys.exit(main())
