"""Work beside requests gives way."""

from __future__ import annotations

import os
import sys
import threading

from serve.live.background import NICENESS, SWITCH_SECONDS, give_way, interrupted_often


def test_a_thread_gives_way_alone() -> None:
    seen: list[int] = []

    def work() -> None:
        give_way()
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [NICENESS]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_the_lock_is_given_up_sooner_only_meanwhile() -> None:
    before = sys.getswitchinterval()
    with interrupted_often():
        assert sys.getswitchinterval() <= SWITCH_SECONDS * 1.001
    assert sys.getswitchinterval() == before
