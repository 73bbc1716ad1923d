"""The first process of a box: when it ends, the kernel ends everything else in the box.

It reaps orphans, and ends when the process that made the box is gone, which it learns from the
end of a pipe; unless that one wrote a byte into it first, which says "live on without me".
"""

import os
import select
import signal
import sys


def main() -> None:
    lifeline = int(sys.argv[1])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    print(os.readlink("/proc/self"), flush=True)  # as the machine counts: /proc is still its own
    while True:
        select.select([lifeline], [], [])
        if not os.read(lifeline, 1):
            return
        os.close(lifeline)
        lifeline = os.pipe()[0]  # nobody closes the other end of this one


main()
