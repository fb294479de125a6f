"""Checkpoints of random weights of each family, and what their networks give.

`python oracles.py FIXTURES GOLDEN` writes the model folders and the golden file of the server's tests.

The networks are those of `transformers`. LLaDA's and Dream's own code is not there: LLaDA is Llama and Dream
is Qwen2, without a causal mask, with other names or with logits shifted by one position.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from vocabularies import END, LAST, MASK, encodings, tokenizer_definition

ROWS = 336  # of the embedding

LLADA_NAMES = {
    "model.embed_tokens": "model.transformer.wte",
    "model.layers": "model.transformer.blocks",
    "self_attn.q_proj": "q_proj",
    "self_attn.k_proj": "k_proj",
    "self_attn.v_proj": "v_proj",
    "self_attn.o_proj": "attn_out",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ff_norm",
    "mlp.gate_proj": "ff_proj",
    "mlp.up_proj": "up_proj",
    "mlp.down_proj": "ff_out",
    "model.norm": "model.transformer.ln_f",
    "lm_head": "model.transformer.ff_out",
}


@dataclass(frozen=True)
class Case:
    """A network of a family: its sizes, and how its checkpoint is saved."""

    family: str
    sizes: dict
    dtype: torch.dtype = torch.float32
    shard: str = "1GB"  # largest file


DECODER = {
    "vocab_size": ROWS,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_theta": 500_000.0, "rope_type": "default"},
    "tie_word_embeddings": False,
}
ENCODER = {
    "vocab_size": ROWS,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
GROUPED = {"num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 37}
SPECIAL = {"bos_token_id": END, "eos_token_id": END, "cls_token_id": END, "sep_token_id": END}
LOCAL = ENCODER | SPECIAL | {"local_attention": 8}
CASES = {
    "llada": Case("llada", DECODER),
    "llada-grouped-tied": Case("llada", DECODER | GROUPED | {"tie_word_embeddings": True}),
    "dream": Case("dream", DECODER | GROUPED, torch.bfloat16, "20KB"),
    "dream-tied": Case("dream", DECODER | {"tie_word_embeddings": True}),
    "qwen3-mdlm": Case("qwen3-mdlm", DECODER | {"head_dim": 10, "tie_word_embeddings": True}),
    "qwen3-mdlm-grouped": Case("qwen3-mdlm", DECODER | GROUPED | {"head_dim": 16, "attention_bias": True}),
    "bert": Case("bert", ENCODER),
    "bert-heads": Case("bert", ENCODER | {"num_attention_heads": 3, "intermediate_size": 37}),
    "modernbert": Case("modernbert", LOCAL),
    "modernbert-biased": Case(
        "modernbert",
        LOCAL
        | {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True}
        | {"tie_word_embeddings": False, "layer_types": ["sliding_attention", "full_attention"] * 2},
    ),
    "half": Case("qwen3-mdlm", DECODER | {"tie_word_embeddings": True}, torch.float16, "20KB"),
}

# Of the fixtures, beside what they share.
GROUPED_SMALL = {
    "dream": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "qwen3-mdlm": {"head_dim": 8, "num_key_value_heads": 2},
}

NETWORKS = {
    "llada": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "dream": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3-mdlm": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "bert": (transformers.BertConfig, transformers.BertForMaskedLM),
    "modernbert": (transformers.ModernBertConfig, transformers.ModernBertForMaskedLM),
}


def random_network(case: Case, seed: int = 0) -> torch.nn.Module:
    """Return a network of the case with every weight off its initial value, as the file rounds it."""
    torch.manual_seed(seed)
    configuration, network = NETWORKS[case.family]
    model = network(configuration(**case.sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter)).copy_(parameter.to(case.dtype).float())
    return model


def save_checkpoint(case: Case, model: torch.nn.Module, folder: Path) -> None:
    """Write the network as its family's checkpoints are."""
    folder.mkdir(parents=True)
    # Not `model.to`, which would round the rotary angles as well.
    weights = {name: tensor.to(case.dtype) for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=weights, max_shard_size=case.shard)
    config = json.loads((folder / "config.json").read_text())
    if case.family == "llada":
        rename_as_llada(folder)
        config = llada_config(model.config)
    elif case.family == "dream":
        config |= {"architectures": ["DreamModel"], "model_type": "Dream", "mask_token_id": MASK}
    elif case.family == "qwen3-mdlm":
        config |= {"architectures": ["A2DQwen3LMHeadModel"], "model_type": "a2d-qwen3"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_definition(case.family)))
    settings = {"eos_token": "<|endoftext|>", "mask_token": {"content": "<|mask|>"}}
    if case.family == "bert":
        settings = {"sep_token": "[SEP]", "mask_token": "[MASK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def llada_config(config: transformers.LlamaConfig) -> dict:
    return {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "d_model": config.hidden_size,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "n_layers": config.num_hidden_layers,
        "mlp_hidden_size": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "embedding_size": config.vocab_size,
        "mask_token_id": MASK,
        "max_sequence_length": config.max_position_embeddings,
        "rope_theta": config.rope_parameters["rope_theta"],
        "rms_norm_eps": config.rms_norm_eps,
        "weight_tying": config.tie_word_embeddings,
        "activation_type": "silu",
        "block_type": "llama",
        "layer_norm_type": "rms",
        "rope": True,
        "include_bias": False,
    }


def rename_as_llada(folder: Path) -> None:
    """Give the tensors of a Llama checkpoint LLaDA's names, file by file."""

    def renamed(name: str) -> str:
        for theirs, ours in LLADA_NAMES.items():
            name = name.replace(theirs, ours)
        return name

    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        save_file({renamed(name): tensor for name, tensor in tensors.items()}, file)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        content = json.loads(index.read_text())
        content["weight_map"] = {renamed(name): file for name, file in content["weight_map"].items()}
        index.write_text(json.dumps(content))


def denoiser(case: Case, model: torch.nn.Module) -> Callable[..., Tensor]:
    """Return the network as a function of ids of the model folder: tokens [B, L] -> logits [B, L, V].

    There the mask and the last token have changed places, and rows without a token are left out.
    """
    order = torch.arange(LAST + 1)
    order[[MASK, LAST]] = order[[LAST, MASK]]

    @torch.no_grad()
    def logits(tokens: Tensor, where: Tensor | None = None) -> Tensor:
        B, L = tokens.shape
        theirs = order[tokens]
        if case.family in ("bert", "modernbert"):
            made = model(theirs, attention_mask=torch.ones(B, L)).logits
        else:
            made = model(theirs, attention_mask=torch.zeros(B, 1, L, L), use_cache=False).logits
        if case.family == "dream":
            made = torch.cat((made[:, :1], made[:, :-1]), dim=1)
        return made[..., order]

    return logits


def golden_case(network: Callable[..., Tensor], **request) -> dict:
    """Return a request and its sample by the reference sampler (didi.tools.golden)."""
    from didi.tools.golden import record
    from didi.tools.oracle import sample

    return record(lambda **asked: sample(network, mask_id=LAST, **asked), request)


def main(fixtures: Path, golden: Path) -> None:
    """Write FIXTURES/FAMILY for each family, and samples of its network to GOLDEN/families.json."""
    from didi.convert import convert

    content = {}
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    for name in NETWORKS:
        case = replace(CASES[name], sizes=CASES[name].sizes | small | GROUPED_SMALL.get(name, {}))
        case = replace(case, dtype=torch.float16)
        model = random_network(case, seed=5)
        with tempfile.TemporaryDirectory() as root:
            save_checkpoint(case, model, Path(root) / "checkpoint")
            convert(Path(root) / "checkpoint", fixtures / name, licence="MIT")
        network = denoiser(case, model)
        hello = Tokenizer.from_file(str(fixtures / name / "tokenizer.json")).encode("The licence").ids
        content[name] = {"encodings": encodings(fixtures / name)}
        short = {"length": 9, "steps": 4, "order": "confidence"}
        content[name]["samples"] = [
            golden_case(network, prompt=hello, length=24, steps=8, seed=3, temperature=1.0),
            golden_case(network, prompt=[], length=16, steps=4, seed=4, temperature=0.7),
            golden_case(network, prompt=hello, **short, seed=5, temperature=1.0),
        ]
    (golden / "families.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
