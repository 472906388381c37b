"""Who computes with how many threads, each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import threading
import torch
from nla_core.nla.threads import take_the_cores

torch.set_num_threads(3)
seen = {}

def worker():
    take_the_cores()
    seen["worker"] = torch.get_num_threads()
    later = threading.Thread(target=lambda: seen.update(later=torch.get_num_threads()))
    later.start()
    later.join()
    seen["still"] = torch.get_num_threads()

thread = threading.Thread(target=worker)
thread.start()
thread.join()
print(seen["worker"], seen["later"], seen["still"])
"""


def test_one_thread_keeps_the_cores_and_later_ones_have_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["3", "1", "3"]
