from __future__ import annotations

import subprocess
import sys

from tests.kits.liveness import assert_ends, is_alive, needs_proc

POOL = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from distill.child_process import end_with_parent

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


@needs_proc
def test_a_child_of_a_pool_ends_with_the_process_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", POOL], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    assert_ends(pid)
