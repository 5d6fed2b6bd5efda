"""A participant with the official Python SDK.  peer.py URL TOKEN WHAT [ARGUMENTS]

  tone HZ [plain]    publishes a tone of amplitude 12000; plain: without RED
  listen             measures received audio, second by second: prints "measured HZ AMPLITUDE SNR"
  echo               echoes data packets, and text streams on the topic "echo"

Prints "joined" after it has joined. Runs until it is killed.
"""

import asyncio
import math
import sys

import numpy as np
from livekit import rtc

RATE = 48000


def say(*words):
    print(*words, flush=True)


async def tone(room, hz, red=True):
    source = rtc.AudioSource(RATE, 1)
    track = rtc.LocalAudioTrack.create_audio_track("tone", source)
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, red=red)
    publication = await room.local_participant.publish_track(track, options)
    say("published", publication.sid)
    angle = 0.0
    while True:
        angles = angle + 2 * math.pi * hz * np.arange(RATE // 100) / RATE
        angle = (angle + 2 * math.pi * hz / 100) % (2 * math.pi)
        samples = (12000 * np.sin(angles)).astype(np.int16)
        await source.capture_frame(rtc.AudioFrame(samples.tobytes(), RATE, 1, RATE // 100))


def measure(pcm):
    pcm = pcm.astype(float)
    up = np.where((pcm[:-1] < 0) & (pcm[1:] >= 0))[0]
    if len(up) < 3:
        return 0.0, 0.0, 0.0
    places = up + pcm[up] / (pcm[up] - pcm[up + 1])
    hz = (len(places) - 1) * RATE / (places[-1] - places[0])
    angles = 2 * math.pi * hz * np.arange(len(pcm)) / RATE
    s, c = 2 * np.mean(pcm * np.sin(angles)), 2 * np.mean(pcm * np.cos(angles))
    residual = pcm - s * np.sin(angles) - c * np.cos(angles)
    amplitude = math.hypot(s, c)
    return hz, amplitude, 10 * math.log10(max(amplitude**2 / 2, 1e-9) / max(np.mean(residual**2), 1e-9))


async def measure_track(track):
    second = []
    async for event in rtc.AudioStream(track, sample_rate=RATE, num_channels=1):
        second.append(np.frombuffer(event.frame.data, dtype=np.int16).copy())
        if sum(map(len, second)) >= RATE:
            say("measured", *("%.2f" % value for value in measure(np.concatenate(second))))
            second = []


async def echo_text(room, reader):
    await room.local_participant.send_text(await reader.read_all(), topic="echo")


async def main(url, token, what, *arguments):
    room = rtc.Room()
    tasks = []

    @room.on("track_subscribed")
    def on_track(track, publication, participant):
        if what == "listen" and track.kind == rtc.TrackKind.KIND_AUDIO:
            tasks.append(asyncio.create_task(measure_track(track)))

    @room.on("active_speakers_changed")
    def on_speakers(speakers):
        say("speaking", *(speaker.identity for speaker in speakers))

    @room.on("track_unpublished")
    def on_unpublished(publication, participant):
        say("unpublished", publication.sid)

    @room.on("track_muted")
    def on_muted(participant, publication):
        say("muted", publication.sid)

    @room.on("data_received")
    def on_data(packet):
        if what == "echo":
            reliable = packet.kind == rtc.DataPacketKind.KIND_RELIABLE
            sending = room.local_participant.publish_data(packet.data, reliable=reliable, topic=packet.topic)
            tasks.append(asyncio.create_task(sending))

    if what == "echo":
        room.register_text_stream_handler(
            "echo", lambda reader, _: tasks.append(asyncio.create_task(echo_text(room, reader)))
        )

    await room.connect(url, token)
    say("joined")
    if what == "tone":
        await tone(room, float(arguments[0]), red="plain" not in arguments)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
