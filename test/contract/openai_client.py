"""`/v1` with OpenAI's client for Python, against a running server: `python openai_client.py ORIGIN KEY`."""

import json
import sys
import urllib.request

import openai

origin, key = sys.argv[1:3]
client = openai.OpenAI(base_url=f"{origin}/v1", api_key=key, max_retries=0)
model = client.models.list().data[0].id
asked = {"model": model, "max_tokens": 24, "seed": 5, "temperature": 1}


def generate(**body) -> dict:
    """The same through the server's own route."""
    request = urllib.request.Request(
        f"{origin}/generate",
        json.dumps(body).encode(),
        {"content-type": "application/json", "x-api-key": key},
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


assert client.models.retrieve(model).id == model

whole = client.completions.create(prompt=["Once", "The cat"], n=2, **asked)
own = [generate(prompt=p, length=24, seed=5, n=2)["samples"] for p in ("Once", "The cat")]
assert [c.text for c in whole.choices] == [s["text"] for samples in own for s in samples]
assert whole.usage.completion_tokens == 96

texts, usage = {}, None
for chunk in client.completions.create(
    prompt=["Once", "The cat"], n=2, stream=True, stream_options={"include_usage": True}, **asked
):
    usage = chunk.usage or usage
    for choice in chunk.choices:
        texts[choice.index] = texts.get(choice.index, "") + choice.text
assert [texts[i] for i in range(4)] == [c.text for c in whole.choices]
assert usage == whole.usage

guidance = {"steps": 4, "guidance": {"mode": "rgas"}}
guided = client.completions.create(prompt="Once", extra_body=guidance, **asked)
ours = generate(prompt="Once", length=24, seed=5, temperature=1, steps=4, guidance={"mode": "rgas"})
assert guided.choices[0].text == ours["samples"][0]["text"]

filled = client.completions.create(prompt="A ", suffix=" B", logprobs=None, **asked)
assert filled.choices[0].text == generate(template="A {{mask:24}} B", seed=5)["samples"][0]["spans"][0]

scored = client.completions.create(prompt="Once", logprobs=0, **asked)
assert len(scored.choices[0].logprobs.tokens) == len(scored.choices[0].logprobs.token_logprobs) > 0

try:
    openai.OpenAI(base_url=f"{origin}/v1", api_key="none", max_retries=0).models.list()
except openai.AuthenticationError as refused:
    assert refused.body["code"] == "unauthorized", refused
else:
    raise AssertionError("a wrong key was accepted")

for body, error in (
    ({"model": "other"}, openai.NotFoundError),
    ({"presence_penalty": 1}, openai.BadRequestError),
    ({"max_tokens": 100_000}, openai.BadRequestError),
):
    try:
        client.completions.create(**{"prompt": "Once", **asked, **body})
    except error as refused:
        assert refused.body["message"], refused
    else:
        raise AssertionError(f"{body} was accepted")
print(f"openai {openai.__version__} for Python: every check passed")
