"""The chat template of a checkpoint folder in Hugging Face's format (docs/reference/model-format.md)."""

import json
from pathlib import Path


def find_template(source: Path, settings: dict) -> str | None:
    """Return the text of `chat_template.jinja`, or of the (default) `chat_template` of the settings."""
    file = source / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = {one["name"]: one["template"] for one in template}.get("default")
    return template


def chat_format(source: Path, tokenizer_file: Path, below: int) -> tuple[str, dict] | None:
    """Return the chat template of a checkpoint and the other fields of `chat` in `model.json`.

    `special_tokens` has the special tokens of `tokenizer_file` with an id below `below`, the mask's. None if
    there is no template. Raise ValueError if it needs a token that is not one of them.
    """
    file = source / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    template = find_template(source, settings)
    if template is None:
        return None
    added = json.loads(tokenizer_file.read_text(encoding="utf-8")).get("added_tokens", [])
    special = {one["content"]: one["id"] for one in added if one["special"] and one["id"] < below}
    fields: dict = {"special_tokens": {text: i for text, i in special.items() if len(text) > 1}}
    for name in ("bos_token", "eos_token"):
        token = settings.get(name)
        text = token["content"] if isinstance(token, dict) else token
        if text is None:
            continue
        if text not in fields["special_tokens"]:
            raise ValueError(f"{file.name}: {name} is {text}, which is no special token of {tokenizer_file.name}")
        fields[name] = text
    if not fields["special_tokens"]:
        raise ValueError(f"{tokenizer_file.name} has no special tokens, and there is a chat template")
    return template, fields
