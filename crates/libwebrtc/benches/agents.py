"""Receiving agents with the official Python SDK: agents.py URL TOKEN...  Prints their resource usage as JSON."""

import asyncio
import json
import os
import resource
import sys
import time

from livekit import rtc

WINDOW = 15


async def listen(room, frames):
    ready = asyncio.get_running_loop().create_future()

    @room.on("track_subscribed")
    def on_track(track, publication, participant):
        if track.kind == rtc.TrackKind.KIND_AUDIO and not ready.done():
            ready.set_result(track)

    yield
    async for _ in rtc.AudioStream(await ready, sample_rate=16000, num_channels=1):
        frames[0] += 1


async def agent(url, token, frames):
    room = rtc.Room()
    listening = listen(room, frames)
    await anext(listening)
    await room.connect(url, token)
    return room, asyncio.create_task(anext(listening, None))


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def main(url, *tokens):
    frames = [0]
    agents = []
    for token in tokens:
        agents.append(await agent(url, token, frames))
    await asyncio.sleep(3)
    used, start, received = cpu(), time.monotonic(), frames[0]
    await asyncio.sleep(WINDOW)
    used, seconds, received = cpu() - used, time.monotonic() - start, frames[0] - received
    with open("/proc/self/status") as lines:
        status = dict(line.split(":", 1) for line in lines)
    print(json.dumps({
        "agents": len(tokens),
        "cpu_s_per_agent_s": used / seconds / len(tokens),
        "rss_kb": int(status["VmRSS"].split()[0]),
        "private_kb": int(status["RssAnon"].split()[0]),
        "frames_per_agent_s": received / seconds / len(tokens),
    }), flush=True)
    # The SDK's threads outlive the event loop and log errors about it indefinitely.
    os._exit(0)


asyncio.run(main(*sys.argv[1:]))
