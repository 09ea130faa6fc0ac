"""recipes/slurm.sh on "nodes" that are processes of this machine: srun, scontrol and what Slurm sends are stubs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from seqba.checkpoints.file import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SRUN = """\
# A torchrun for each node; a signal goes to every process of the step, as Slurm's cgroups have it.
import os, signal, subprocess, sys, time
from pathlib import Path

words = sys.argv[1:]
options = dict(word.split("=") for word in words[: words.index("torchrun")])
Path(os.environ["STUBS"], "srun").write_text(" ".join(words))
Path(os.environ["STUBS"], "patience").write_text(os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
agents = []

def children(parents):
    table = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        table.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found = list(parents)
    for process in found:
        found += table.get(process, [])
    return found

def forward(number, _frame):
    for process in sorted(children([agent.pid for agent in agents]), reverse=True):
        os.kill(process, number)
        time.sleep(0.01)  # the workers, which are youngest, first: they have obeyed when torchrun hands on its own

signal.signal(signal.SIGTERM, forward)
for node in range(int(options["--nodes"])):
    environment = {**os.environ, "SLURM_NODEID": str(node), "GLOO_SOCKET_IFNAME": "lo"}
    command = words[words.index("torchrun"):]
    agents.append(subprocess.Popen(command, env=environment, start_new_session=True))
sys.exit(max(abs(agent.wait()) for agent in agents))
"""
SCONTROL = """\
import os, sys
from pathlib import Path

if sys.argv[1:3] == ["show", "hostnames"]:
    print(chr(10).join(["localhost"] * len(sys.argv[3].split(","))))
else:
    Path(os.environ["STUBS"], "requeued").write_text(" ".join(sys.argv[1:]))
"""


@pytest.fixture
def sbatch(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`sbatch(recipe, …, UPDATES="3")` starts slurm.sh as Slurm does: a copy of it, on the first of two nodes."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (stubs / f"{name}.py").write_text(text, encoding="utf-8")
        (stubs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {stubs}/{name}.py "$@"\n', encoding="utf-8")
        (stubs / name).chmod(0o755)
    copy, jobs = tmp_path / "slurm_script", []
    copy.write_bytes((ROOT / "recipes" / "slurm.sh").read_bytes())
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "one,two", "SLURM_JOB_NUM_NODES": "2"}

    def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[bytes]:
        variables = {
            **os.environ,
            **job,
            "PATH": f"{stubs}:{os.environ['PATH']}",
            "STUBS": str(tmp_path),
            "SEQBA_VENV": sys.prefix,
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        with (tmp_path / "log").open("ab") as log:
            jobs.append(subprocess.Popen(["bash", copy, *arguments], cwd=ROOT, env=variables, stdout=log, stderr=log))
        return jobs[-1]

    yield start
    for entry in Path("/proc").glob("[0-9]*/environ"):  # what a failed test leaves
        with suppress(OSError):
            if f"STUBS={tmp_path}\0".encode() in entry.read_bytes():
                os.kill(int(entry.parent.name), signal.SIGKILL)
    for job in jobs:
        job.wait()


def wait_for(word: str, log: Path, job: subprocess.Popen[bytes]) -> None:
    """Until the job's log has the word."""
    end = time.monotonic() + 120
    while word not in log.read_text(encoding="utf-8"):
        assert job.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < end, log.read_text(encoding="utf-8")
        time.sleep(0.05)


@pytest.mark.slow
def test_a_job_whose_time_is_up_goes_back_into_the_queue_and_on_from_there(sbatch, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    first = sbatch("recipes/quickstart.sh", "--out", out, UPDATES="100000")
    wait_for('"update": 50', log, first)
    first.send_signal(signal.SIGTERM)  # to the batch shell alone: B:
    assert first.wait(120) != 0
    told = log.read_text(encoding="utf-8")
    assert "goes back into the queue" in told
    assert told.count("the same command goes on") == 1
    assert (tmp_path / "requeued").read_text(encoding="utf-8") == f"requeue {os.getpid()}"
    started = (tmp_path / "srun").read_text(encoding="utf-8").split()
    assert {"--nodes=2", "--ntasks=2", "--nnodes=2", "--nproc-per-node=1", "--kill-on-bad-exit=0"} <= set(started)
    assert f"--rdzv-endpoint=localhost:{20000 + os.getpid() % 20000}" in started
    assert (tmp_path / "patience").read_text(encoding="utf-8") == "150"
    (tmp_path / "requeued").unlink()

    reached = read_checkpoint(out / "checkpoints" / "checkpoint_last.pt")["extra_state"]["trainer"]["updates"]
    assert reached >= 50
    again = sbatch("recipes/quickstart.sh", "--out", out, UPDATES=str(reached + 3), SLURM_RESTART_COUNT="1")
    assert again.wait(120) == 0, log.read_text(encoding="utf-8")
    assert "BLEU" in log.read_text(encoding="utf-8").splitlines()[-1]
    assert not (tmp_path / "requeued").exists()
    last = read_checkpoint(out / "checkpoints" / "checkpoint_last.pt")["extra_state"]["trainer"]["updates"]
    assert last == reached + 3


def test_a_recipe_that_fails_ends_the_job_and_is_not_put_back(sbatch, tmp_path: Path) -> None:
    job = sbatch("recipes/quickstart.sh", "--no-such-option")
    assert job.wait(60) == 2
    assert not (tmp_path / "requeued").exists()


def test_outside_a_job_is_one_line(sbatch, tmp_path: Path) -> None:
    job = sbatch("recipes/quickstart.sh", SLURM_JOB_ID="")
    assert job.wait(60) == 2
    told = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert told == ["error: no SLURM_JOB_ID: start it with sbatch recipes/slurm.sh recipes/quickstart.sh ..."]


@pytest.mark.parametrize(("recipe", "status"), [("sleep 600", 143), ("trap 'exit 0' TERM; sleep 1 & wait", 0)])
def test_what_was_stopped_before_it_trains_is_put_back_unless_it_was_done(
    sbatch, tmp_path: Path, recipe: str, status: int
) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "environment.sh").write_bytes((ROOT / "recipes" / "environment.sh").read_bytes())
    (recipes / "slow.sh").write_text(f"echo begun >&2; {recipe}\n", encoding="utf-8")
    job = sbatch(recipes / "slow.sh")
    wait_for("begun", tmp_path / "log", job)
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == status
    assert (tmp_path / "requeued").exists() == (status != 0)
