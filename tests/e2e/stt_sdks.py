"""Transcribes two seconds of sound by a vendor's official SDK, and prints what it gave as one line of JSON.

Arguments: the vendor, the base URL, the key.
"""

import io
import json
import struct
import sys
import threading
import wave

RATE = 16_000
SAMPLES = [n * 7919 % 16_001 - 8_000 for n in range(2 * RATE)]
PCM = struct.pack(f"<{len(SAMPLES)}h", *SAMPLES)
PIECES = [PCM[at : at + RATE // 5] for at in range(0, len(PCM), RATE // 5)]  # 100 ms each


def deepgram(url, key):
    from deepgram import DeepgramClient
    from deepgram.core.events import EventType
    from deepgram.environment import DeepgramClientEnvironment

    socket_url = url.replace("http", "ws", 1)
    environment = DeepgramClientEnvironment(base=url, production=socket_url, agent=socket_url, agent_rest=url)
    messages = []
    options = dict(model="nova-3", encoding="linear16", sample_rate=RATE, interim_results="true", language="multi",
                   keyterm=["Dashwood", "Mentra Live"], diarize_model="latest")
    with DeepgramClient(api_key=key, environment=environment).listen.v1.connect(**options) as connection:
        connection.on(EventType.MESSAGE, messages.append)
        connection.on(EventType.ERROR, lambda error: messages.append(error))
        listening = threading.Thread(target=connection.start_listening)
        listening.start()
        for piece in PIECES:
            connection.send_media(piece)
        connection.send_finalize()
        connection.send_close_stream()
        listening.join(20)
    results = [message for message in messages if message.type == "Results"]
    finals = [result for result in results if result.is_final]
    best = [result.channel.alternatives[0] for result in finals]
    return {
        "text": " ".join(alternative.transcript for alternative in best if alternative.transcript),
        "interims": len(results) - len(finals),
        "from_finalize": any(result.from_finalize for result in finals),
        "speakers": sorted({word.speaker for alternative in best for word in alternative.words}),
        "languages": sorted({language for alternative in best for language in alternative.languages or []}),
        "last": messages[-1].type,
        "duration": messages[-1].duration,
    }


def assemblyai(url, key):
    from assemblyai.streaming.v3 import (
        StreamingClient,
        StreamingClientOptions,
        StreamingEvents,
        StreamingParameters,
    )

    turns, errors, ends = [], [], []
    client = StreamingClient(StreamingClientOptions(api_key=key, api_host=url.replace("http", "ws", 1)))
    client.on(StreamingEvents.Turn, lambda _, turn: turns.append(turn))
    client.on(StreamingEvents.Error, lambda _, error: errors.append(str(error)))
    client.on(StreamingEvents.Termination, lambda _, end: ends.append(end.audio_duration_seconds))
    client.connect(
        StreamingParameters(sample_rate=RATE, speech_model="universal-3-5-pro", keyterms_prompt=["Dashwood"],
                            language_codes=["en"], language_detection=True, speaker_labels=True)
    )
    client.stream(iter(PIECES))
    client.disconnect(terminate=True)
    last = {turn.turn_order: turn for turn in turns}
    return {
        "text": " ".join(turn.transcript for turn in last.values()),
        "interims": sum(not turn.end_of_turn for turn in turns),
        "whole": all(turn.end_of_turn and turn.turn_is_formatted for turn in last.values()),
        "speakers": sorted({turn.speaker_label for turn in turns}),
        "languages": sorted({turn.language_code for turn in turns}),
        "duration": ends[0],
        "errors": errors,
    }


def openai(url, key):
    from openai import OpenAI

    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((1, 2, RATE, 0, "NONE", ""))
        wav.writeframes(PCM)
    client = OpenAI(api_key=key, base_url=url, max_retries=0)
    request = dict(model="gpt-transcribe", file=("audio.wav", file.getvalue()), response_format="json",
                   languages=["en", "de"], keywords=["Dashwood", "Mentra Live"])
    events = list(client.audio.transcriptions.create(**request, stream=True))
    whole = client.audio.transcriptions.create(**request)
    return {
        "text": events[-1].text,
        "deltas": "".join(event.delta for event in events[:-1]),
        "languages": [language.code for language in events[-1].languages],
        "whole": whole.text,
    }


if __name__ == "__main__":
    vendor, base_url, api_key = sys.argv[1:]
    print(json.dumps({"deepgram": deepgram, "assemblyai": assemblyai, "openai": openai}[vendor](base_url, api_key)))
