"""A pair of glasses made of the official Python SDK: publishes WAV files into a LiveKit room.

usage: publisher.py URL TOKEN TRACK

Says "published" when the track is. Then takes the path of a WAV file (16 kHz, mono) a line, speaks it
in real time, and says "spoken"; between files the microphone is quiet, as a real one is: it sends a
faint noise, not nothing. Leaves at the end of its input.
"""

import asyncio
import random
import sys
import threading
import wave

from livekit import rtc

RATE = 16_000
FRAME = RATE // 100  # 10 ms


async def main(url: str, token: str, name: str) -> None:
    loop = asyncio.get_running_loop()
    paths: asyncio.Queue[str | None] = asyncio.Queue()
    threading.Thread(target=read_lines, args=(loop, paths), daemon=True).start()

    room = rtc.Room()
    await room.connect(url, token)
    source = rtc.AudioSource(RATE, 1, queue_size_ms=100)
    track = rtc.LocalAudioTrack.create_audio_track(name, source)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
    await room.local_participant.publish_track(track, options)
    print("published", flush=True)

    chance = random.Random(1)
    while True:
        try:
            path = paths.get_nowait()
        except asyncio.QueueEmpty:
            await capture(source, bytes(byte for _ in range(FRAME) for byte in faint(chance)))
            continue
        if path is None:
            break
        with wave.open(path, "rb") as recording:
            assert (recording.getframerate(), recording.getnchannels()) == (RATE, 1), path
            samples = recording.readframes(recording.getnframes())
        for start in range(0, len(samples), FRAME * 2):
            await capture(source, samples[start : start + FRAME * 2].ljust(FRAME * 2, b"\0"))
        print("spoken", flush=True)
    await room.disconnect()


def faint(chance: random.Random) -> bytes:
    """One sample of noise at about -70 dBFS."""
    return int(chance.gauss(0, 10)).to_bytes(2, "little", signed=True)


async def capture(source: rtc.AudioSource, samples: bytes) -> None:
    await source.capture_frame(rtc.AudioFrame(samples, RATE, 1, FRAME))


def read_lines(loop: asyncio.AbstractEventLoop, paths: asyncio.Queue) -> None:
    for line in sys.stdin:
        loop.call_soon_threadsafe(paths.put_nowait, line.strip())
    loop.call_soon_threadsafe(paths.put_nowait, None)


asyncio.run(main(*sys.argv[1:]))
