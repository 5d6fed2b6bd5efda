"""Asks a language model by a vendor's official SDK, and prints what it gave as one line of JSON.

Arguments: the SDK, the base URL, the key. The server answers with two calls of the tool `moon`, with a text, with 429,
with 400, with an error in the stream, and refuses the wrong key.
"""

import json
import sys

IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def openai(url, key):
    import openai

    client = openai.OpenAI(base_url=url, api_key=key, max_retries=0)
    tools = [{"type": "function", "function": {"name": "moon", "description": "Where it is.", "parameters": SCHEMA}}]
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Where is the moon?"}, image]},
    ]

    def ask(client=client):
        options = dict(model="m", messages=messages, tools=tools, stream_options={"include_usage": True})
        with client.chat.completions.stream(**options) as stream:
            return stream.get_final_completion()

    first = ask()
    message = first.choices[0].message
    calls = message.tool_calls
    messages.append({
        "role": "assistant",
        "content": message.content,
        "tool_calls": [
            {"id": call.id, "type": "function",
             "function": {"name": call.function.name, "arguments": call.function.arguments}}
            for call in calls
        ],
    })
    messages.extend({"role": "tool", "tool_call_id": call.id, "content": "in the east"} for call in calls)
    second = ask()
    return {
        "text": message.content,
        "calls": [[call.function.name, json.loads(call.function.arguments)] for call in calls],
        "finish": [first.choices[0].finish_reason, second.choices[0].finish_reason],
        "usage": [first.usage.prompt_tokens, first.usage.completion_tokens],
        "second": second.choices[0].message.content,
        "errors": errors(ask, openai, openai.OpenAI(base_url=url, api_key="wrong", max_retries=0)),
    }


def anthropic(url, key):
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0)
    tools = [{"name": "moon", "description": "Where it is.", "input_schema": SCHEMA}]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "Where is the moon?"}, image]}]

    def ask(client=client):
        options = dict(model="m", max_tokens=512, system="Be brief.", messages=messages, tools=tools)
        with client.messages.stream(**options) as stream:
            return stream.get_final_message()

    first = ask()
    calls = [block for block in first.content if block.type == "tool_use"]
    messages.append({"role": "assistant", "content": [block.to_dict() for block in first.content]})
    messages.append({
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "in the east"} for call in calls],
    })
    second = ask()
    return {
        "text": "".join(block.text for block in first.content if block.type == "text"),
        "calls": [[call.name, call.input] for call in calls],
        "finish": [first.stop_reason, second.stop_reason],
        "usage": [first.usage.input_tokens, first.usage.output_tokens],
        "second": second.content[0].text,
        "errors": errors(ask, anthropic, anthropic.Anthropic(base_url=url, api_key="wrong", max_retries=0)),
    }


def errors(ask, sdk, with_wrong_key):
    found = []
    for arguments in [(), (), (), (with_wrong_key,)]:
        try:
            ask(*arguments)
        except sdk.RateLimitError as error:
            found.append(["RateLimitError", error.response.headers["retry-after"]])
        except sdk.BadRequestError as error:
            found.append(["BadRequestError", "no such thing" in str(error)])
        except sdk.AuthenticationError:
            found.append(["AuthenticationError"])
        except sdk.APIError as error:
            found.append(["APIError", "out of order" in str(error)])
        else:
            found.append(None)
    return found


if __name__ == "__main__":
    name, url, key = sys.argv[1:]
    print(json.dumps({"openai": openai, "anthropic": anthropic}[name](url, key)))
