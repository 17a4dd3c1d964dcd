"""The main job, end to end, in a real Scipion project on disk: ``python -m tomotwin_scipion.demo --out DIR``.

Two crowded tomograms are simulated with the engine; everything from their import to the coordinates is done by
Scipion's protocols, launched as its window launches them. The picks are then taken out of Scipion's own objects,
in Scipion's frame, and held against the truth. What is made:

    DIR/simulated/         tomograms, their truth, the reference maps
    DIR/scipion/           a Scipion home with configuration, user data and the project
    DIR/picks/             the picks as STAR, exported from the project
    DIR/scores.csv         per species: true, found, precision, recall, F1
    DIR/picks.png          picks on a slice of the tomogram, beside the truth
    DIR/open_project.sh    opens the project in the Scipion window

A second run keeps what is there and finished, and does the rest; ``--afresh`` starts over.

The script runs twice: as called, to prepare a Scipion home and the environment variables that Scipion reads when
it is imported; and from there as a process of its own that works inside that Scipion.
"""

import argparse
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from typing import Any, Dict, List

PROJECT = "tomotwin_demo"
INSIDE = "--inside-scipion"
POLL_SECONDS = 0.5


def main() -> int:
    """Parse the command line and run the demo."""
    parser = argparse.ArgumentParser(prog="python -m tomotwin_scipion.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="demo-output", help="folder to work in (default: %(default)s)")
    parser.add_argument("--afresh", action="store_true", help="throw away what an earlier run left there")
    parser.add_argument("--tomograms", type=int, default=2, help="number of tomograms (default: %(default)s)")
    parser.add_argument("--voxel-size", type=float, default=8.0, help="their voxel size in A (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation (default: %(default)s)")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    out = os.path.abspath(options.out)
    try:
        if options.inside_scipion:
            work_inside_scipion(out)
        else:
            prepare_and_run(out, options)
    except subprocess.CalledProcessError as error:
        return error.returncode
    except RuntimeError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    return 0


# ------------------------------ outside Scipion ------------------------------
def prepare_and_run(out: str, options: argparse.Namespace) -> None:
    """Simulate, set up a Scipion home, and start the second half inside it."""
    started = time.time()
    if options.afresh:
        for name in ("simulated", "scipion", "picks"):
            shutil.rmtree(os.path.join(out, name), ignore_errors=True)
    environment = scipion_environment(os.path.join(out, "scipion"))
    simulated = os.path.join(out, "simulated")
    if os.path.exists(os.path.join(simulated, "simulation.json")):
        say(f"1. Simulated tomograms are kept from an earlier run: {simulated} (--afresh makes new ones)")
    else:
        say(f"1. Simulating {options.tomograms} tomograms at {options.voxel_size:g} A/voxel into {simulated}")
        call = ["tomotwin", "simulate", "--out", simulated, "--tomograms", str(options.tomograms)]
        call += ["--voxel-size", f"{options.voxel_size:g}", "--seed", str(options.seed), "--references"]
        subprocess.run(call, check=True, env=environment)
    if not os.path.exists(os.path.join(environment["SCIPION_HOME"], "config", "hosts.conf")):
        configure = [sys.executable, "-m", "scipion", "config", "--unattended"]
        subprocess.run(configure, check=True, env=environment, stdout=subprocess.DEVNULL)
    write_opener(os.path.join(out, "open_project.sh"), environment)
    inside = [sys.executable, "-m", "tomotwin_scipion.demo", "--out", out, INSIDE]
    subprocess.run(inside, check=True, env=environment)
    say(f"\nDone in {time.time() - started:.0f} s. The picture: {os.path.join(out, 'picks.png')}")
    say(f"To see the project in the Scipion window:  sh {os.path.join(out, 'open_project.sh')}")


def scipion_environment(home: str) -> Dict[str, str]:
    """Environment of a Scipion whose home is `home` and whose Python is this one; makes the folder."""
    data = os.path.join(home, "data")
    os.makedirs(data, exist_ok=True)
    environment = dict(os.environ)
    environment.pop("PYTHONPATH", None)
    environment.update(
        SCIPION_HOME=home,
        SCIPION_USER_DATA=data,
        SCIPION_DOMAIN="pwem",
        SCIPION_PYTHON=sys.executable,
        SCIPION_NOTIFY="False",
        SCIPION_STEPS_CHECK_SEC="1",
        VIRTUAL_ENV=sys.prefix,
        PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]),
    )
    return environment


def write_opener(path: str, environment: Dict[str, str]) -> None:
    """Write a shell script that opens the project in the Scipion window."""
    names = ["SCIPION_HOME", "SCIPION_USER_DATA", "SCIPION_DOMAIN", "SCIPION_PYTHON", "SCIPION_NOTIFY", "VIRTUAL_ENV"]
    lines = ["#!/bin/sh", "# Opens the demo's project in the Scipion window (needs a screen and python3-tk)."]
    lines += [f"export {name}={shlex.quote(environment[name])}" for name in names]
    lines += [f"export PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH"]
    lines += [f"exec {shlex.quote(sys.executable)} -O -m scipion project {PROJECT}"]
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")


def say(line: str) -> None:
    """Print at once, in step with what the processes started from here print."""
    print(line, flush=True)


# ------------------------------ inside Scipion ------------------------------
def work_inside_scipion(out: str) -> None:
    """Run the protocols in the project, then hold the picks against the truth."""
    import mrcfile
    from pwem.protocols import ProtImportVolumes
    from pyworkflow.object import Pointer
    from pyworkflow.project import Manager
    from tomo.protocols import ProtImportTomograms

    from .protocols import ProtTwinEmbedTomograms, ProtTwinReferencePicking

    simulated = os.path.join(out, "simulated")
    references = os.path.join(simulated, "references")
    manager = Manager()
    known = manager.hasProject(PROJECT)
    project = manager.loadProject(PROJECT) if known else manager.createProject(PROJECT)
    os.chdir(project.path)
    project.getSettings().setProtocolView("Tomography")
    project.getSettings().write()

    say(f"2. Scipion project {project.path}: importing tomograms and reference maps")
    tomograms = prepare(project, ProtImportTomograms, filesPath=simulated, filesPattern="*.mrc")
    maps = prepare(project, ProtImportVolumes, filesPath=references, filesPattern="*.mrc")
    for protocol, folder in ((tomograms, simulated), (maps, references)):
        first = min(name for name in os.listdir(folder) if name.endswith(".mrc"))
        with mrcfile.open(os.path.join(folder, first), header_only=True) as file:
            protocol.samplingRate.set(round(float(file.voxel_size.x), 4))
    finish(project, tomograms, maps)

    threads = {"numberOfThreads": 1, "binThreads": os.cpu_count() or 1}
    say("3. Embedding the tomograms")
    embedding = prepare(project, ProtTwinEmbedTomograms, **threads)
    embedding.inputTomograms.set(tomograms)
    embedding.inputTomograms.setExtended("Tomograms")
    finish(project, embedding)

    say("4. Picking every species by its reference map")
    picking = prepare(project, ProtTwinReferencePicking, **threads)
    picking.inputEmbeddings.set(embedding)
    picking.inputEmbeddings.setExtended("Embeddings")
    if not len(picking.inputReferences):
        picking.inputReferences.append(Pointer(maps, extended="outputVolumes"))
    finish(project, picking)

    say("5. Scipion's coordinates against the truth")
    evaluate(out, picking)


def prepare(project: Any, protocolClass: Any, **values: Any) -> Any:
    """The project's run of this protocol, from an earlier demo or new; the demo has one run of each."""
    for run in project.getRuns(refresh=True, checkPids=True):  # what was killed is then known to have failed
        if run.getClassName() == protocolClass.__name__:
            return run
    return project.newProtocol(protocolClass, **values)


def finish(project: Any, *protocols: Any) -> None:
    """Launch the protocols that are not finished yet, side by side, and wait for them."""
    from pyworkflow.utils import isProcessAlive

    todo = [protocol for protocol in protocols if not protocol.isFinished()]
    for protocol in todo:
        if protocol.isActive():  # an interrupted demo left it running
            continue
        errors = protocol.validate()
        if errors:
            raise RuntimeError(f"{protocol.getClassLabel()}: " + " ".join(errors))
        project.launchProtocol(protocol, wait=False, force=True)
    shown = dict.fromkeys(range(len(todo)), 0)
    while any(protocol.isActive() for protocol in todo):
        time.sleep(POLL_SECONDS)
        for number, protocol in enumerate(todo):
            # Asked before its state is read: a process that ends in between has still written its last state.
            isGone = protocol.getPid() != 0 and not isProcessAlive(protocol.getPid())
            project._updateProtocol(protocol, checkPid=isGone)
            shown[number] = show_progress(protocol.getStderrLog(), shown[number])
    for protocol in protocols:
        if not protocol.isFinished():
            log = os.path.join(project.path, protocol.getStdoutLog())
            reason = re.sub(r"\x1b\[\d*m", "", protocol.getErrorMessage())  # Scipion colours it
            raise RuntimeError(f"{protocol.getClassLabel()}: {reason} (log: {log})")
        took = f"{protocol.getElapsedTime().total_seconds():.0f} s" if protocol in todo else "kept"
        say(f"   {protocol.getClassLabel()}: {took}")


def show_progress(log: str, position: int) -> int:
    """Repeat the engine's progress lines, one in ten seconds, that came to a protocol's log since `position`."""
    if not os.path.exists(log):
        return position
    with open(log, errors="replace") as file:
        file.seek(position)
        for line in file:
            if " %, " in line:
                say("     " + line.strip())
        return file.tell()


def evaluate(out: str, picking: Any) -> None:
    """Export the picks from the project and compare them with the truth."""
    from . import Plugin
    from .constants import OUTPUT_COORDINATES, TOMOTWIN_BIN
    from .convert import write_positions

    coordinates = getattr(picking, OUTPUT_COORDINATES)
    with open(picking._getGroupsFile(), newline="") as file:
        groups = list(csv.DictReader(file))
    names = {int(row["group_id"]): row["target"] for row in groups}
    diameters = {int(row["group_id"]): float(row["diameter_A"]) for row in groups}
    folder = os.path.join(out, "picks")
    os.makedirs(folder, exist_ok=True)
    # A list first: Scipion's sets cannot be asked for an item while they are iterated over.
    tomograms = [(item.getTsId(), os.path.realpath(item.getFileName())) for item in coordinates.getPrecedents()]
    picks: List[str] = []
    truths: List[str] = []
    candidates: List[str] = []
    for tsId, simulated in tomograms:
        picks.append(os.path.join(folder, tsId + "_picks.star"))
        write_positions(coordinates, picks[-1], coordinates.getSamplingRate(), [tsId], names, diameters)
        truths.append(os.path.splitext(simulated)[0] + "_truth.star")
        candidates.append(picking._getPeaksFile(tsId))
    call = [Plugin.getVar(TOMOTWIN_BIN), "evaluate", *picks, "--truth", *truths, "--candidates", *candidates]
    call += ["--out", os.path.join(out, "scores.csv")]
    call += ["--picture", os.path.join(out, "picks.png"), "--tomogram", tomograms[0][1]]
    subprocess.run(call, check=True)


if __name__ == "__main__":
    sys.exit(main())
