"""Speaks a text by a vendor's official SDK, and prints the sound and the refusal of a wrong key as one line of JSON.

Arguments: the vendor, the base URL, the key, the text.
"""

import base64
import json
import sys


def openai(url, key, text):
    from openai import OpenAI

    client = OpenAI(api_key=key, base_url=url, max_retries=0)
    request = dict(model="gpt-4o-mini-tts", voice="alloy", input=text, response_format="pcm")
    with client.audio.speech.with_streaming_response.create(**request) as response:
        yield from response.iter_bytes()


def deepgram(url, key, text):
    from deepgram import DeepgramClient
    from deepgram.environment import DeepgramClientEnvironment

    environment = DeepgramClientEnvironment(base=url, production=url, agent=url, agent_rest=url)
    client = DeepgramClient(api_key=key, environment=environment)
    options = dict(model="aura-2-thalia-en", encoding="linear16", sample_rate=24_000, container="none")
    yield from client.speak.v1.audio.generate(text=text, **options)


def elevenlabs(url, key, text):
    from elevenlabs.client import ElevenLabs

    client = ElevenLabs(api_key=key, base_url=url)
    # Otherwise the SDK uses TLS whatever the base URL says.
    client.text_to_speech._ws_base_url = url.replace("http", "ws", 1)
    yield from client.text_to_speech.convert_realtime(
        "george", text=iter([text]), model_id="eleven_flash_v2_5", output_format="pcm_24000"
    )


def refusal(speak, url, text):
    try:
        b"".join(speak(url, "wrong-key", text))
    except Exception as error:
        return str(getattr(error, "status_code", None) or error)
    return None


if __name__ == "__main__":
    vendor, base_url, api_key, sentence = sys.argv[1:]
    speech = {"openai": openai, "deepgram": deepgram, "elevenlabs": elevenlabs}[vendor]
    pcm = b"".join(speech(base_url, api_key, sentence))
    print(json.dumps({"pcm": base64.b64encode(pcm).decode(), "refusal": refusal(speech, base_url, sentence)}))
