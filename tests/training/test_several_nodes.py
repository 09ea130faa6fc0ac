"""seqba-train under several torchruns that meet: here two on one machine, as they would be on two nodes."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from alphabet import write_alphabet
from preloaded import preloaded
from rank_runs import train_all
from reversal import write_reversal

from seqba.checkpoints.file import read_checkpoint
from seqba.training.folder import LAST

UPDATES = 10
NAMES = ("transformer", "awd_lstm")


def start(folder: Path, save: str, node: int, processes: int, port: int) -> subprocess.Popen[str]:
    """One node's torchrun."""
    meeting = ["--nnodes", "2", "--node-rank", str(node), "--rdzv-backend", "c10d", "--rdzv-id", save]
    command = [*meeting, "--rdzv-endpoint", f"localhost:{port}", "--nproc-per-node", str(processes)]
    script = Path(__file__).with_name("rank_runs.py")
    torchrun = [preloaded().python, "-m", "torch.distributed.run", *command]
    return subprocess.Popen(
        [*torchrun, script, folder, save, str(UPDATES), ",".join(NAMES)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port: int = listener.getsockname()[1]
        return port


def weights(folder: Path, save: str, name: str) -> torch.Tensor:
    state = read_checkpoint(folder / save / name / LAST)["model"]
    return torch.cat([state[key].double().flatten() for key in sorted(state)])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_two_nodes_come_to_the_weights_of_one_process(tmp_path: Path, processes: int) -> None:
    write_reversal(tmp_path / "reversal")
    write_alphabet(tmp_path / "alphabet")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_all(tmp_path, str(UPDATES), [], names=list(NAMES), save="alone")
    torch.set_num_threads(threads)

    port = free_port()
    with ExitStack() as stack:
        nodes = [stack.enter_context(start(tmp_path, "nodes", node, processes, port)) for node in range(2)]
        for node in nodes:
            stack.callback(node.kill)
        for node in nodes:
            _, complaints = node.communicate(timeout=200)
            assert node.returncode == 0, complaints
    for name in NAMES:
        alone, several = (weights(tmp_path, save, name) for save in ("alone", "nodes"))
        assert float((alone - several).norm() / alone.norm()) < 1e-5
        lines = (tmp_path / "nodes" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert sum('"event": "train"' in line for line in lines) == UPDATES  # one rank of all nodes logs
