"""A slow way to the login node: passes bytes on, each as late as asked for.

    slow.py PORT TARGET MILLISECONDS

Delays each direction by MILLISECONDS, so that a round trip takes twice that more, and a new
connection one round trip, as TCP's handshake would. (Where a kernel has netem, that would do;
many have not.)
"""

import asyncio
import sys

PORT, TARGET, DELAY = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000


async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await late.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    delivering = asyncio.ensure_future(deliver())
    try:
        while True:
            data = await reader.read(1 << 16)
            await late.put((asyncio.get_running_loop().time() + DELAY, data))
            if not data:
                break
    except ConnectionError:
        writer.close()
    await delivering


async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(2 * DELAY)
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", TARGET)
    except OSError:
        writer.close()
        return
    await asyncio.gather(
        passed_on(reader, far_writer), passed_on(far_reader, writer), return_exceptions=True
    )


async def main() -> None:
    server = await asyncio.start_server(connected, "0.0.0.0", PORT)
    await server.serve_forever()


asyncio.run(main())
