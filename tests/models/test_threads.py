"""Who computes with how many threads, each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import threading
import torch
from nla_core.models.threads import spare_cores, the_cores

torch.set_num_threads(3)
seen = []

def see(name):
    seen.append(f"{name} {torch.get_num_threads()}")

def in_a_thread(work, *args):
    thread = threading.Thread(target=work, args=args)
    thread.start()
    thread.join()
"""
CASES = {
    "the others have one": (
        """
def worker():
    with the_cores():
        see("worker")
        in_a_thread(see, "later")
        see("still")

in_a_thread(worker)
""",
        ["worker 3", "later 1", "still 3"],
    ),
    "a worker that takes another's place has them, too": (
        """
def worker(name):
    with the_cores():
        see(name)

in_a_thread(worker, "first")
in_a_thread(worker, "second")
""",
        ["first 3", "second 3"],
    ),
    "what is spare is there between two pieces of work": (
        """
def experiment(name):
    spare_cores()
    see(name)

def worker():
    with the_cores():
        in_a_thread(experiment, "beside")
    in_a_thread(experiment, "between")
    in_a_thread(see, "query")
    with the_cores():
        see("worker")

in_a_thread(worker)
""",
        ["beside 1", "between 3", "query 1", "worker 3"],
    ),
    "nobody is told to use less where no worker computes": (
        """
in_a_thread(lambda: (spare_cores(), see("experiment")))
in_a_thread(see, "later")
""",
        ["experiment 3", "later 3"],
    ),
    "a worker that hangs and is replaced holds nothing": (
        """
from nla_core.models.threads import give_back

hangs, go_on = threading.Event(), threading.Event()

def worker():
    with the_cores():
        hangs.set()
        go_on.wait()

def experiment(name):
    spare_cores()
    see(name)

thread = threading.Thread(target=worker)
thread.start()
hangs.wait()
in_a_thread(experiment, "beside")
give_back(thread.ident)
in_a_thread(experiment, "after")
go_on.set()
thread.join()
""",
        ["beside 1", "after 3"],
    ),
    "they are given back where the work fails": (
        """
def worker():
    try:
        with the_cores():
            raise ValueError
    except ValueError:
        spare_cores()
        see("after")

in_a_thread(worker)
""",
        ["after 3"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_threads(case: str) -> None:
    script, expected = CASES[case]
    script = f"{BEGIN}{script}print('\\n'.join(seen))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines() == expected
