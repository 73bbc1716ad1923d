"""What a chunk waits for in the queue.

These are hints: they keep an allocation from starting too early. What decides is the agent, who
looks at the files of the runs that come first.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

from hpcml.agent import wire
from hpcml.layout import Layout
from hpcml.schedulers import Chunk
from hpcml.schedulers.slurm.commands import Row
from hpcml.transports import Transport

Place = tuple[str, str]  # of a chunk: its batch's attempts/, and its number


def dependencies(chunk: Chunk, files: Transport) -> list[str]:
    """As ``--dependency`` takes them: ``afterok:5_3``; all of them must be met.

    Parameters
    ----------
    chunk : Chunk
        With ``max_running``, it also waits for others that are counted together with it: the
        throttle of an array counts its own tasks alone.
    files : Transport
    """
    found = []
    if chunk.max_running is not None and chunk.number != "0":
        before = f"{chunk.folder}/attempts", str(int(chunk.number) - 1)
        found += [f"afterany:{job}" for job in _ids([before], files).values()]
    if chunk.max_running is not None:
        found += [f"afterany:{job}" for job in _group_before(chunk, chunk.max_running, files)]
    return [*dict.fromkeys(found + _after(chunk.after, files))]


def _group_before(chunk: Chunk, most: int, files: Transport) -> list[str]:
    """Of the chunks counted together, those that must have ended before one more may begin.

    Where each is one run, the last ``most`` of them are that many lanes, and it follows in the
    first; otherwise it waits for all of them.
    """
    path = group_file(chunk)
    found = files.get({path: 0}).get(path, b"")
    last = [line for line in wire.parse_lines(found) if line["name"] != chunk.name][-most:]
    if all(line["runs"] == 1 for line in last) and chunk.count == 1:
        return [str(last[0]["id"])] if len(last) == most else []
    return [str(line["id"]) for line in last]


def group_file(chunk: Chunk) -> str:
    """Where the chunks that are counted together are written down, in the order of their calls."""
    return f"runs/{chunk.group}/attempts/0.group"


def _after(runs: Sequence[str], files: Transport) -> list[str]:
    """Runs that come first, by the allocations that they are in."""
    if not runs:
        return []
    batches = {wire.run_parts(run)[0] for run in runs}
    plans = files.get({f"runs/{batch}/plan.json": 0 for batch in batches})
    layouts = {
        path.split("/")[1]: Layout(**json.loads(plan)["batch"]["layout"])
        for path, plan in plans.items()
    }
    places: dict[tuple[Place, int, bool], None] = {}  # its chunk, its task, whether alone
    for run in runs:
        batch, index = wire.run_parts(run)
        layout = layouts.get(batch)
        if layout is not None:
            number, within = divmod(index, layout.size * layout.call)
            place = f"runs/{batch}/attempts", str(number)
            places[place, within // layout.size, layout.size == 1] = None
    ids = _ids({place for place, _, _ in places}, files)
    # Of an allocation for several runs the exit code does not tell how one of them ended.
    return [
        f"{'afterok' if alone else 'afterany'}:{ids[place]}_{task}"
        for place, task, alone in places
        if place in ids
    ]


def _ids(chunks: Collection[Place], files: Transport) -> dict[Place, str]:
    """The ids that the queue gave to chunks, as far as they are written down."""
    listed = files.names_in({folder for folder, _ in chunks})
    queued = {folder: wire.queued_as(names) for folder, names in listed.items()}
    return {
        (folder, number): queued[folder][number][0]
        for folder, number in chunks
        if number in queued.get(folder, {})
    }


def known_to(dependencies: Iterable[str], rows: Sequence[Row]) -> list[str]:
    """Those that the queue still knows; what it has forgotten has ended, and the agent looks."""
    jobs = {row.job for row in rows}
    return [it for it in dependencies if it.partition(":")[2].partition("_")[0] in jobs]
