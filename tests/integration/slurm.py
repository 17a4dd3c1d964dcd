"""A SLURM of one node, as root, with its own configuration, key and ports; and Scipion's hosts.conf for it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

CONF = """ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={port1}
SlurmdPort={port2}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

HOSTS = """[localhost]
PARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s
NAME = SLURM
MANDATORY = False
SUBMIT_COMMAND = sbatch %_(JOB_SCRIPT)s
SUBMIT_TEMPLATE = #!/bin/bash
    ##SBATCH --job-name=%_(JOB_NAME)s
    ##SBATCH --partition=%_(JOB_QUEUE)s
    ##SBATCH --output=%_(JOB_LOGS)s.out
    ##SBATCH --error=%_(JOB_LOGS)s.err
    ##SBATCH --ntasks=1
    ##SBATCH --cpus-per-task=%_(JOB_THREADS)d
    ##SBATCH --time=%_(JOB_TIME)s:00:00
    %_(JOB_COMMAND)s
CANCEL_COMMAND = scancel %_(JOB_ID)s
CHECK_COMMAND = squeue -h -j %_(JOB_ID)s
QUEUES = {
    "main": [["JOB_TIME", "1", "Time (hours)", "After which the job is stopped."],
             ["QUEUE_FOR_JOBS", "N", "Use queue for jobs", "Y: each command is a job of its own."]]
    }
"""


def require_slurm() -> None:
    """Skip where it cannot be started."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        pytest.skip(f"there is no {missing[0]}: the queue is not tried (apt-get install slurm-wlm)")
    if os.geteuid() != 0:
        pytest.skip("SLURM can be started by root alone: the queue is not tried")


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start it; gives the environment with which its commands find it. `folder` has a short path, as sockets want it."""
    (folder / "state").mkdir(parents=True)
    (folder / "spool").mkdir()
    host = socket.gethostname().split(".")[0]
    port1, port2 = free_ports(2)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(folder=folder, host=host, port1=port1, port2=port2))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    environment = {"SLURM_CONF": str(conf), "PATH": PATH}
    running = []
    try:
        munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
        munged += [f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/seed"]
        for command in (munged, ["slurmctld", "-D", "-f", str(conf)], ["slurmd", "-D", "-f", str(conf)]):
            with open(folder / f"{command[0]}.out", "w") as out:
                whole = {**os.environ, **environment}
                running.append(subprocess.Popen(command, env=whole, stdout=out, stderr=subprocess.STDOUT))
            if command is munged:
                wait_for(lambda: (folder / "munge.socket").exists(), folder, 20)
        wait_for(lambda: "idle" in ask(environment, "sinfo", "-h", "-o", "%T"), folder, 60)
        yield environment
    finally:
        for process in reversed(running):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ask(environment: dict[str, str], *command: str) -> str:
    """What a command of SLURM says."""
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    return done.stdout


def wait_for(condition: object, folder: Path, seconds: float) -> None:
    """Wait until it holds; the logs where it does not."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            logs = [path.read_text(errors="replace")[-1500:] for path in sorted(folder.glob("*.out"))]
            logs += [path.read_text(errors="replace")[-1500:] for path in sorted(folder.glob("*.log"))]
            raise AssertionError("SLURM does not start:\n" + "\n".join(logs))
        time.sleep(0.3)


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
