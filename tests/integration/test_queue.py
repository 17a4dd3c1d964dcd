"""Whole protocols and single commands as jobs of a real SLURM, which the test starts; the engine is a stand-in."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from conftest import Run
from slurm import HOSTS, ask, require_slurm, slurm

STAND_IN = Path(__file__).parents[1] / "scipion" / "fake_tomotwin.py"
GOOD, BROKEN = ["ts_1", "ts_2"], "ts_3"


@pytest.fixture(scope="module")
def queued(in_scipion: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, list[dict[str, str]]]]:
    require_slurm()
    folder = tmp_path_factory.mktemp("tomograms")
    for number, tsId in enumerate([*GOOD, BROKEN]):
        with mrcfile.new(folder / f"{tsId}.mrc") as file:
            volume = np.zeros((20, 30, 40), np.float32)
            if tsId != BROKEN:  # a constant one is refused
                volume[5, 6, 7 + number] = -1
            file.set_data(volume)
            file.voxel_size = 8.0
    place = Path(tempfile.mkdtemp(prefix="slurm_", dir="/tmp"))
    try:
        with slurm(place) as environment:
            more = {**environment, "TOMOTWIN_BIN": str(STAND_IN), "FAKE_TOMOTWIN_LOG": str(folder / "calls.jsonl")}
            said = in_scipion("queued.py", folder, hosts=HOSTS, more=more)
            listed = ask(environment, "squeue", "-h", "-t", "all", "-o", "%i|%j|%T").splitlines()
            jobs = [dict(zip(("id", "name", "state"), line.split("|"), strict=True)) for line in listed]
            yield said, jobs
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_a_whole_protocol_is_one_job(queued: tuple[Any, list[dict[str, str]]]) -> None:
    said, jobs = queued
    assert said["protocol"]["tsIds"] == GOOD
    own = [job for job in jobs if job["name"] == str(said["protocol"]["id"])]
    assert [job["state"] for job in own] == ["COMPLETED"]


def test_each_command_is_a_job_where_the_queue_is_for_jobs_and_a_failed_one_is_told(
    queued: tuple[Any, list[dict[str, str]]],
) -> None:
    said, jobs = queued
    assert said["steps"]["tsIds"] == GOOD
    own = [job for job in jobs if job["name"].startswith(f"{said['steps']['id']}-")]
    assert sorted(job["state"] for job in own) == ["COMPLETED", "COMPLETED", "FAILED"]
    text = "\n".join(said["steps"]["summary"])
    assert "1 tomogram(s) failed" in text and f"{BROKEN}.mrc is constant" in text  # the engine's own sentence


def test_both_tell_the_same_of_the_broken_tomogram_and_leave_logs(queued: tuple[Any, list[dict[str, str]]]) -> None:
    said, _ = queued
    for way in ("protocol", "steps"):
        assert any(BROKEN in line for line in said[way]["summary"])
        assert any(name.endswith(".out") for name in said[way]["logs"])
