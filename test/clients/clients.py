"""Clients for Python, each used as its documentation shows.

`python clients.py ORIGIN MODEL_FOLDER SCRATCH CHAT_ORIGIN`. Prints one JSON line for each client: its
name, its version and what was done.
"""

import asyncio
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

origin, folder, scratch, chat_origin = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
os.environ |= {
    "OPENAI_API_KEY": "none",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "TOKENIZERS_PARALLELISM": "false",
}
model = "stories-didi"
chat_model = "tiny-chat"
prompt = "Once upon a time"


def passed(package: str, done: str) -> None:
    row = {"client": package, "language": "Python", "version": version(package), "done": done}
    print(json.dumps(row), flush=True)


def use_openai() -> None:
    import openai

    client = openai.OpenAI(base_url=f"{origin}/v1")
    whole = client.completions.create(model=model, prompt=prompt, max_tokens=32, seed=1, logprobs=2)
    stream = client.completions.create(
        model=model, prompt=prompt, max_tokens=32, seed=1, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].text for c in chunks[:-1]) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage and len(whole.choices[0].logprobs.top_logprobs[0]) >= 2
    chat = openai.OpenAI(base_url=f"{chat_origin}/v1").chat.completions
    asked = {"model": chat_model, "messages": [{"role": "user", "content": "Hi"}], "seed": 1}
    asked |= {"max_completion_tokens": 24, "n": 2}
    texts = [choice.message.content for choice in chat.create(**asked).choices]
    parts = ["", ""]
    for chunk in chat.create(**asked, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            parts[choice.index] += choice.delta.content
    assert parts == texts and chunk.usage.completion_tokens > 0
    filled = client.completions.create(model=model, prompt="The ", suffix=" sat.", max_tokens=4, seed=1)
    assert filled.choices[0].text and client.models.retrieve(model).id == model
    for wrong, error in (
        ({"model": "other"}, openai.NotFoundError),
        ({"presence_penalty": 1}, openai.BadRequestError),
    ):
        try:
            client.completions.create(**{"model": model, "prompt": prompt, **wrong})
        except error as refused:
            assert refused.body["message"], refused
        else:
            raise AssertionError(f"{wrong} was accepted")
    passed("openai", "completions and chat, streamed with usage; log-probabilities with alternatives")


def use_langchain() -> None:
    from langchain_openai import ChatOpenAI, OpenAI

    llm = OpenAI(model=model, base_url=f"{origin}/v1", max_tokens=24, seed=1)
    whole = llm.invoke(prompt)
    assert whole and "".join(llm.stream(prompt)) == whole
    assert len(llm.generate([prompt, "The dog"]).generations) == 2
    chat = ChatOpenAI(model=chat_model, base_url=f"{chat_origin}/v1", max_completion_tokens=24, seed=1)
    messages = [("system", "Be brief"), ("human", "Hi")]
    assert "".join(part.content for part in chat.stream(messages)) == chat.invoke(messages).content
    passed("langchain-openai", "OpenAI: invoke, stream, generate; ChatOpenAI: invoke, stream")


def use_litellm() -> None:
    import litellm

    asked = {"model": f"text-completion-openai/{model}", "api_base": f"{origin}/v1"}
    asked |= {"prompt": prompt, "max_tokens": 24, "seed": 1}
    whole = litellm.text_completion(**asked).choices[0].text
    chunks = litellm.text_completion(**asked, stream=True)
    assert whole and "".join(chunk.choices[0].text or "" for chunk in chunks) == whole
    passed("litellm", "text_completion, streamed or not")


def use_triton() -> None:
    import numpy
    import tritonclient.http as triton

    client = triton.InferenceServerClient(origin.removeprefix("http://"))
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model, "1")
    assert client.get_model_metadata(model)["versions"] == ["1"]
    texts = []
    for binary in (True, False):
        tensor = triton.InferInput("text_input", [1, 1], "BYTES")
        tensor.set_data_from_numpy(numpy.array([[prompt.encode()]], dtype=object), binary_data=binary)
        outputs = None if binary else [triton.InferRequestedOutput("text_output", binary_data=False)]
        parameters = {"length": 24, "steps": 4, "seed": 1}
        result = client.infer(model, [tensor], outputs=outputs, parameters=parameters)
        text = result.as_numpy("text_output").item()
        texts.append(text.decode() if isinstance(text, bytes) else text)
    assert texts[0] == texts[1]
    passed("tritonclient", "health, metadata, infer with binary tensors (its default) and with JSON")


def use_httpx() -> None:
    import httpx

    with httpx.Client(http2=True, base_url=origin) as client:
        answer = client.post("/generate", json={"prompt": prompt, "length": 16, "steps": 4})
        assert answer.status_code == 200 and answer.http_version == "HTTP/1.1"
    passed("httpx", "POST /generate with HTTP/2 asked for; answered over HTTP/1.1")


async def use_websockets() -> None:
    import websockets

    async with websockets.connect(f"{origin.replace('http', 'ws', 1)}/generate/stream") as socket:
        message = {"type": "generate", "id": "1", "prompt": prompt, "length": 16, "steps": 4}
        await socket.send(json.dumps(message))
        async for message in socket:
            if json.loads(message)["type"] == "done":
                break
    passed("websockets", "a request over /generate/stream, every step received")


TASK = """task: tiny_stories
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{text}}"
doc_to_choice: choices
doc_to_target: label
metric_list: [{metric: acc}]
metadata: {version: 1}
"""


def use_lm_eval() -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    home = scratch / "tokenizer"
    home.mkdir()
    (home / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (home / "tokenizer_config.json").write_text(json.dumps(settings))
    docs = [
        {
            "text": "Once upon a time, there was a little girl. She liked to",
            "choices": [" play with her dog.", " of the but dog girl."],
            "label": 0,
        },
        {
            "text": "The dog was happy. The dog wagged his",
            "choices": [" were the not", " tail and barked."],
            "label": 1,
        },
    ]
    data = scratch / "docs.json"
    data.write_text("\n".join(map(json.dumps, docs)))
    (scratch / "tiny.yaml").write_text(TASK % data)
    result = lm_eval.simple_evaluate(
        model="local-completions",
        model_args={
            "model": model,
            "base_url": f"{origin}/v1/completions",
            "tokenizer": str(home),
            "tokenizer_backend": "huggingface",
        },
        tasks=["tiny_stories"],
        task_manager=TaskManager(include_path=str(scratch), include_defaults=False),
        bootstrap_iters=0,
    )
    assert result["results"]["tiny_stories"]["acc,none"] == 1.0, result["results"]
    passed("lm_eval", "local-completions: a task of multiple choice, scored by pseudo-log-likelihood")


use_openai()
use_langchain()
use_litellm()
use_triton()
use_httpx()
asyncio.run(use_websockets())
use_lm_eval()
