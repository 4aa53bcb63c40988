"""A takeover by the release before this one, and back again. Its binary is $WSSGATE_PREVIOUS, or the one that is tested."""

import asyncio
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from conversations import PYTHON, backend
from gateway import gateway, route
from processes import PATIENCE, same
from renewal import Talker
from takeover import ECHOES, VERSIONS, open_socket

SOCKETS = 40
# Of a kind that a release may not know how to take: then it stays in the process that has it.
OTHERS = 4
REFUSED = "a session stays: the new process can't take it"


async def a_rollback_and_its_end_are_noticed_by_no_session():
    this, previous = os.environ["WSSGATE"], os.environ["WSSGATE_PREVIOUS"]
    with TemporaryDirectory(prefix="interop-") as directory:
        program = Path(directory, "wssgate")
        replace(program, this)
        async with backend(PYTHON, True) as (_, url):
            routes = [route("/", proxy=url), route("/other", service="echo")]
            async with gateway(*routes, program=program, complaints=[REFUSED]) as gate:
                await roll_back_and_forth(gate, program, previous, this)


async def roll_back_and_forth(gate, program, previous, this):
    news = asyncio.Condition()
    paths = ["/"] * SOCKETS + ["/other"] * OTHERS
    talkers = [Talker(await open_socket(gate, VERSIONS[n % 2], path), news) for n, path in enumerate(paths)]
    async with asyncio.TaskGroup() as group:
        for talker in talkers:
            group.create_task(talker.talk())
        held = len(talkers)
        for nth, binary in enumerate([previous, this]):
            replace(program, binary)
            moved = await gate.take_over(retires=False)
            same("sessions moved and left", moved["sessions_moved"] + moved["sessions_left"], held)
            same("all of the usual kind have moved", moved["sessions_moved"] >= SOCKETS, True)
            taken = await gate.log.line(message="sessions taken over", nth=nth)
            same("sessions that have come", taken["sessions"], moved["sessions_moved"])
            held = moved["sessions_moved"]
            wanted = [talker.echoes + ECHOES for talker in talkers]
            async with news, asyncio.timeout(PATIENCE):
                await news.wait_for(lambda: all(t.echoes >= n for t, n in zip(talkers, wanted)))
        for talker in talkers:
            talker.stopped = True
    await gate.log.line(message="session", nth=len(talkers) - 1)
    sessions = gate.log.find(message="session", ended_by="client", close_code=1000)
    same("sessions that their clients have closed", len(sessions), len(talkers))
    said = [sum(line[f"{way}_messages"] for line in sessions) for way in ("received", "sent")]
    same("messages", said, [sum(talker.echoes for talker in talkers)] * 2)
    # Both old processes end, whatever has stayed in them.
    await gate.log.line(message="retired: the last connection has ended", nth=1)


def replace(program, binary):
    """As a package manager does: the path leads to another file from one moment to the next."""
    new = program.with_suffix(".new")
    new.symlink_to(Path(binary).resolve())
    new.replace(program)
