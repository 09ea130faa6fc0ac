from __future__ import annotations

import threading

import pytest
from torch.distributed import HashStore, Store, TCPStore

from seqba.distributed.rendezvous import agree, meet


def names_of_a_start(store: Store, size: int = 3, late: int | None = None) -> list[str]:
    """What each rank of a start takes for its name; `late` begins when all the others wait."""
    names = [""] * size

    def come(rank: int) -> None:
        names[rank] = agree(store, rank, size, timeout_s=20)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in range(size)]
    for rank in sorted(range(size), key=lambda rank: rank == late):
        threads[rank].start()
    for thread in threads:
        thread.join()
    return names


@pytest.mark.parametrize("late", [None, 0, 2])
def test_all_ranks_of_a_start_have_one_name_and_every_start_another(late: int | None) -> None:
    store = HashStore()
    starts = [names_of_a_start(store, late=late) for _ in range(3)]
    assert all(len(set(names)) == 1 for names in starts)
    assert len({names[0] for names in starts}) == 3


def test_the_first_rank_is_not_misled_by_what_the_dead_left() -> None:
    store = HashStore()
    with pytest.raises(TimeoutError, match="rank 0 has not come"):
        agree(store, 1, 3, timeout_s=0)
    with pytest.raises(TimeoutError, match="rank 1 has not come"):
        agree(store, 0, 3, timeout_s=0)
    assert len(set(names_of_a_start(store))) == 1


def test_under_torchrun_a_start_finds_nothing_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = TCPStore("localhost", 0, is_master=True)
    where = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "localhost", "MASTER_PORT": kept.port}
    for name, value in {**where, "TORCHELASTIC_USE_AGENT_STORE": True}.items():
        monkeypatch.setenv(name, str(value))
    first, second = meet(20), meet(20)
    assert first is not None
    assert second is not None
    assert first[1:] == second[1:] == (0, 1)
    first[0].set("address", "of the dead")
    assert first[0].check(["address"])
    assert not second[0].check(["address"])


def test_processes_that_have_a_store_of_their_own_need_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    assert meet(1) is None
