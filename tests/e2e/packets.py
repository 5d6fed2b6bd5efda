"""A phone of MentraOS made of the official Python SDK: sends its microphone as lossy data packets.

usage: packets.py URL TOKEN

Says "published" when it is in the room. Then takes the path of a WAV file (16 kHz, mono) a line, sends it
and says "spoken". A packet is one byte of sequence, from 1, modulo 256, and 100 ms of PCM; four leave at
once, every 400 ms. Between files the microphone is quiet, and every fifth packet is lost. Leaves at the
end of its input.
"""

import asyncio
import random
import sys
import threading
import wave

from livekit import rtc

RATE = 16_000
PACKET = RATE // 10 * 2  # 100 ms in bytes
BURST = 4


async def main(url: str, token: str) -> None:
    loop = asyncio.get_running_loop()
    paths: asyncio.Queue[str | None] = asyncio.Queue()
    threading.Thread(target=read_lines, args=(loop, paths), daemon=True).start()

    room = rtc.Room()
    await room.connect(url, token)
    print("published", flush=True)

    chance = random.Random(1)
    seq, speech = 0, b""
    due = loop.time()
    while True:
        for _ in range(BURST):
            seq = (seq + 1) % 256
            if speech:
                packet, speech = speech[:PACKET], speech[PACKET:]
                if not speech:
                    print("spoken", flush=True)
            elif seq % 5 == 0:
                continue
            else:
                packet = b"".join(faint(chance) for _ in range(PACKET // 2))
            await room.local_participant.publish_data(bytes([seq]) + packet, reliable=False)
        try:
            path = paths.get_nowait()
        except asyncio.QueueEmpty:
            pass
        else:
            if path is None:
                break
            with wave.open(path, "rb") as recording:
                assert (recording.getframerate(), recording.getnchannels()) == (RATE, 1), path
                speech += recording.readframes(recording.getnframes())
        due += BURST / 10
        await asyncio.sleep(max(0, due - loop.time()))
    await room.disconnect()


def faint(chance: random.Random) -> bytes:
    """One sample of noise at about -70 dBFS."""
    return int(chance.gauss(0, 10)).to_bytes(2, "little", signed=True)


def read_lines(loop: asyncio.AbstractEventLoop, paths: asyncio.Queue) -> None:
    for line in sys.stdin:
        loop.call_soon_threadsafe(paths.put_nowait, line.strip())
    loop.call_soon_threadsafe(paths.put_nowait, None)


asyncio.run(main(*sys.argv[1:]))
