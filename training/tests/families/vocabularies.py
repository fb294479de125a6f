"""Small tokenizers of each family, and texts in many scripts."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TOKENS = 320  # ids below this are text
END, MASK, LAST = TOKENS, TOKENS + 1, TOKENS + 2  # special: end of text, mask, another

# How Qwen 2 splits a text; and, as far as is known, LLaDA, with quantifiers that JavaScript lacks.
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
SPLITS = {"llada": LING, "dream": QWEN, "qwen3-mdlm": QWEN}

TEXTS = [
    "Once upon a time, it's what they'd've said; WE'LL SEE!",
    "naïve café 🙂 👩‍👩‍👧 日本語の文 Здравствуй, мир. "
    "مرحبا بالعالم नमस्ते สวัสดี Ελληνικά",
    "def f(x):\n    return {k: v ** 2}\t# 3.14159e-10\r\n\r\n        end",
    "12345 1,234.56 ½ Ⅷ ٣  two  spaces   three",
    "<|im_start|>user <|mask|> <|endoftext|> [MASK] [SEP] <think>",
    "e\u0301\u0323 \u00a0\u3000 \u200b ﬃ x\u0000y",
    "",
]


def tokenizer_definition(family: str) -> dict:
    """Return a tokenizer.json as the family's are: TOKENS tokens of text, then special ones."""
    corpus = [*TEXTS, *(Path(__file__).parents[3] / "LICENSE").read_text().splitlines()] * 2
    if family == "bert":
        tokenizer = Tokenizer(models.WordPiece({}, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(
            vocab_size=TOKENS, special_tokens=["[UNK]"], limit_alphabet=120, show_progress=False
        )
        special = ["[SEP]", "[MASK]", "[unused0]"]
    else:
        tokenizer = Tokenizer(models.BPE())
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=family not in SPLITS)
        if family in SPLITS:
            split = pre_tokenizers.Split(Regex(SPLITS[family]), "isolated")
            whole = pre_tokenizers.Sequence([split, whole])
        tokenizer.pre_tokenizer = whole
        tokenizer.decoder = decoders.ByteLevel()
        text = ["  ", "   "] if family == "modernbert" else ["<think>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        size = TOKENS - len(text)
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        special = ["<|endoftext|>", "<|mask|>", "<|im_end|>"]
    tokenizer.train_from_iterator(corpus, trainer)
    if family != "bert":
        tokenizer.add_tokens([AddedToken(one, normalized=False) for one in text])
    tokenizer.add_special_tokens(special)
    assert [tokenizer.token_to_id(one) for one in special] == [END, MASK, LAST]
    return json.loads(tokenizer.to_str())


def encodings(folder: Path) -> list[dict]:
    """Return the ids of TEXTS by the Python library, for a model folder. Special tokens are text."""
    definition = json.loads((folder / "tokenizer.json").read_text())
    spaces = [one for one in definition["added_tokens"] if one["content"].isspace()]
    plain = Tokenizer.from_str(json.dumps(definition | {"added_tokens": spaces}))
    return [{"text": text, "ids": plain.encode(text).ids} for text in TEXTS]
