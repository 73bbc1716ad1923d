"""What the travelling file can be told to do: run, work, notify, dispatch, sample, serve."""

import os
import signal
import sys


def main(argv: "list[str]") -> int:
    """Entry point of ``hpcml-<digest>.pyz``. Returns the exit code, or ends the process itself."""
    os.umask(0o077)
    # A client that blocks signals must not make an agent deaf for ever.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    command, rest = argv[0], argv[1:]
    if command in ("run", "work"):
        from hpcml.agent import attempt, share, slot

        call = share.run if command == "run" else slot.run
        try:
            code = call(os.getcwd(), *map(int, rest))
        except (attempt.AgentError, OSError) as error:
            sys.stderr.write("hpcml: %s\n" % error)
            return 70  # EX_SOFTWARE; no attempt was started
        if not __file__.endswith(".pyc"):  # this Python has to compile
            from hpcml.agent import bytecode

            bytecode.leave(os.path.abspath(sys.path[0]))
        sys.stderr.flush()
        os._exit(code)  # nothing is left to be done: to take leave of each module takes 2 ms
    if command == "notify":
        from hpcml.agent import processes, supervise

        supervise.notify(processes.of_run(rest[0]))
        return 0
    if command == "dispatch":
        from hpcml.agent import dispatcher

        return dispatcher.main(rest[0])
    if command == "sample":
        from hpcml.agent.energy import sampler

        return sampler.main(*rest)
    if command == "serve":
        from hpcml.agent import serving

        return serving.main(*rest)
    sys.stderr.write("hpcml: there is no command %r\n" % command)
    return 64
