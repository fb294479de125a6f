"""Causal language models of the same sizes: the judge of samples, and the autoregressive peer.

Their blocks are the denoiser's without adaLN, with causal attention: a GPT-NeoX without parallel residual,
with rotary positions over the whole head, and zeros for the biases it lacks. `python -m didi.train
--objective causal` trains one. `python -m didi.causal --checkpoint FILE --out DIR` exports it as Hugging
Face's tools expect it: `config.json`, `model.safetensors`, and `model.onnx` with its key-value cache, which
reads its matrices from `model.safetensors`; `tokenizer.json` must be in DIR. With `--fluency FOLDER` the
model becomes the reward `fluency` of that model folder.
"""

import argparse
import json
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from onnx.external_data_helper import load_external_data_for_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from .backbone import BackboneConfig, BlockLayers, Embedding, LayerNorm, apply_rotary, attention
from .backbone import read_average, rotary_tables
from .command import command_parser
from .corpus import SEPARATOR
from .export import file_entry
from .graphs.causal import Cache, CachedDecoder, Fluency, GraphCausal
from .graphs.denoise import cut
from .graphs.stored import StoredTensors, store_once
from .graphs.trace import CUDA_OPSET, to_model, trace

# Weights beside which GPT-NeoX has a bias and we have none.
BIASED = ("norm1.weight", "norm2.weight", "norm_final.weight", "attn_qkv.weight", "attn_out.weight")


class CausalBlock(BlockLayers):
    """Pre-norm attention over the past and the token itself, then the MLP."""

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, keep: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run x [B, S, d] after T cached tokens; return its output, and the keys and values of all T + S."""
        B, S, d = x.shape
        qkv = self.attn_qkv(self.norm1(x)).view(B, S, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        x = x + self.dropout(self.attn_out(attention(q, k, v, keep).transpose(1, 2).reshape(B, S, d)))
        return x + self.dropout(self.mlp(self.norm2(x))), (k, v)


class CausalLM(nn.Module):
    """p(next token | tokens so far): ids [B, L] -> logits [B, L, V]. The mask's logit is never trained."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.config = config
        self.vocab_embed = Embedding(config.vocab_size, config.hidden)
        self.blocks = nn.ModuleList(CausalBlock(config) for _ in range(config.blocks))
        self.norm_final = LayerNorm(config.hidden)
        self.linear = nn.Linear(config.hidden, config.vocab_size, bias=False)
        cos, sin = rotary_tables(config.context, config.hidden // config.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for block in self.blocks:
            # Residual branches start at zero, as the denoiser's gates do.
            nn.init.zeros_(block.attn_out.weight)
            nn.init.zeros_(block.mlp[2].weight)
        nn.init.zeros_(self.linear.weight)

    def extend(self, tokens: Tensor, keep: Tensor, position: Tensor, cache: Cache | None):
        """Run tokens [B, S] that follow T cached ones; return their final hidden states [B, S, d] and the new
        cache.

        `keep` (broadcast over [B, H, S, T + S]) is false at pairs to leave out; `position` is [S] or [B, 1,
        S].
        """
        x, grown = self.vocab_embed(tokens), []
        for i, block in enumerate(self.blocks):
            x, pair = block(x, self.cos[position], self.sin[position], keep, cache[i] if cache else None)
            grown.append(pair)
        return self.norm_final(x), grown

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [B, L, V]. Raise ValueError if L exceeds the context."""
        L = tokens.shape[1]
        if L > self.config.context:
            raise ValueError(f"{L} tokens are longer than the context of {self.config.context}")
        keep = torch.ones(L, L, dtype=torch.bool).tril()
        return self.linear(self.extend(tokens, keep, torch.arange(L), None)[0])


def next_token_nats(model: CausalLM, x: Tensor, end_id: int) -> Tensor:
    """Return -log p [B, L] of each token of x [B, L] given those before it, after an end of text."""
    before = torch.cat((torch.full_like(x[:, :1], end_id), x[:, :-1]), dim=1)
    return F.cross_entropy(model(before).float().flatten(0, 1), x.flatten(), reduction="none").view_as(x)


@torch.no_grad()
def sample_causal(
    model: CausalLM, start: Tensor, length: int, temperature: float = 1.0, top_p: float = 1.0
) -> Tensor:
    """Draw ids [B, length], one token at a time, that follow `start` [B, S]; the mask is never drawn.

    Temperature 0 takes the most likely token. After the temperature, `top_p` cuts as in the graphs.
    """
    S = start.shape[1]
    keep, position, tokens = torch.ones(S, S, dtype=torch.bool).tril(), torch.arange(S), start
    cache, written = None, []
    for i in range(S, S + length):
        hidden, cache = model.extend(tokens, keep, position, cache)
        logits = model.linear(hidden[:, -1])
        logits[:, model.config.mask_id] = -torch.inf
        if temperature > 0:
            every, share = torch.zeros(len(logits), dtype=torch.int64), torch.full((len(logits),), top_p)
            p, _ = cut(torch.softmax(logits / temperature, dim=-1), every, share, logits.shape[1])
            tokens = torch.multinomial(p, 1)
        else:
            tokens = logits.argmax(-1, keepdim=True)
        written.append(tokens)
        keep, position = torch.ones(i + 1, dtype=torch.bool), torch.tensor([i])
    return torch.cat(written, dim=1)


def neox_names(config: BackboneConfig) -> dict[str, str]:
    """Map our parameter names to GPT-NeoX's."""
    names = {
        "vocab_embed.embedding": "gpt_neox.embed_in.weight",
        "norm_final.weight": "gpt_neox.final_layer_norm.weight",
        "linear.weight": "embed_out.weight",
    }
    layers = {
        "norm1": "input_layernorm",
        "attn_qkv": "attention.query_key_value",
        "attn_out": "attention.dense",
        "norm2": "post_attention_layernorm",
        "mlp.0": "mlp.dense_h_to_4h",
        "mlp.2": "mlp.dense_4h_to_h",
    }
    for i in range(config.blocks):
        for ours, theirs in layers.items():
            for part in ("weight", "bias") if ours.startswith("mlp") else ("weight",):
                names[f"blocks.{i}.{ours}.{part}"] = f"gpt_neox.layers.{i}.{theirs}.{part}"
    return names


def to_neox(model: CausalLM) -> dict[str, Tensor]:
    """Return the weights under GPT-NeoX's names: query, key and value by head, zeros for absent biases."""
    config, d = model.config, model.config.hidden
    weights = {}
    for ours, theirs in neox_names(config).items():
        tensor = model.state_dict()[ours]
        if ours.endswith("attn_qkv.weight"):
            tensor = tensor.view(3, config.heads, d // config.heads, d).transpose(0, 1).reshape(3 * d, d)
        weights[theirs] = tensor.contiguous()
        if ours.endswith(BIASED):
            weights[theirs.removesuffix("weight") + "bias"] = torch.zeros(len(tensor))
    return weights


def from_neox(weights: dict[str, Tensor], config: BackboneConfig) -> dict[str, Tensor]:
    """Invert `to_neox`."""
    d = config.hidden
    state = {ours: weights[theirs].float() for ours, theirs in neox_names(config).items()}
    for name in state:
        if name.endswith("attn_qkv.weight"):
            state[name] = state[name].view(config.heads, 3, -1, d).transpose(0, 1).reshape(3 * d, d)
    return state


def neox_config(config: BackboneConfig, end_id: int) -> dict:
    """Return `config.json` of the model for Hugging Face's tools."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.blocks,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_ratio * config.hidden,
        "hidden_act": "gelu_new",
        "rotary_pct": 1.0,
        "rotary_emb_base": 10_000,
        "max_position_embeddings": config.context,
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": False,
        "tie_word_embeddings": False,
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "torch_dtype": "float32",
    }


def load_causal(path: Path) -> CausalLM:
    """Load an exported folder, or the averaged weights of a checkpoint (.pt), in evaluation mode."""
    if path.is_dir():
        sizes = json.loads((path / "config.json").read_text())
        config = BackboneConfig(
            vocab_size=sizes["vocab_size"],
            hidden=sizes["hidden_size"],
            blocks=sizes["num_hidden_layers"],
            heads=sizes["num_attention_heads"],
            context=sizes["max_position_embeddings"],
            mlp_ratio=sizes["intermediate_size"] // sizes["hidden_size"],
        )
        weights = from_neox(load_file(path / "model.safetensors"), config)
    else:
        config, weights = read_average(path)
    model = CausalLM(config)
    model.load_state_dict(weights)
    return model.eval()


def graph_causal(weights: dict[str, Tensor], config: BackboneConfig) -> GraphCausal:
    """Return the model as its graphs run it, from `model.safetensors` or what `to_neox` returns."""
    return GraphCausal(weights, config).eval()


def export_causal(model: GraphCausal, path: Path, weights: str | None = None) -> None:
    """Write the decoder with its cache as ONNX.

    With `weights`, a file in the same folder, the graph reads its matrices from there.
    """
    decoder = CachedDecoder(model)
    heads, (hidden, _) = model.layers[0].heads, model.head.shape
    B, S, T = 2, 3, 5
    # A tensor for each entry: the exporter takes one tensor that occurs twice for one input.
    cache = [torch.zeros(B, heads, T, hidden // heads) for _ in range(2 * len(model.layers))]
    batch, new, past = (torch.export.Dim(name) for name in ("batch", "new", "past"))
    exported = trace(
        decoder,
        example={
            "input_ids": torch.zeros(B, S, dtype=torch.int64),
            "attention_mask": torch.ones(B, T + S, dtype=torch.int64),
            "position_ids": torch.zeros(B, S, dtype=torch.int64),
            "cache": cache,
        },
        inputs=decoder.inputs,
        outputs=decoder.outputs,
        dynamic_shapes={
            "input_ids": {0: batch, 1: new},
            "attention_mask": {0: batch, 1: torch.export.Dim.AUTO},
            "position_ids": {0: batch, 1: new},
            "cache": [{0: batch, 2: past}] * len(cache),
        },
    )
    if weights:
        store_once(exported, model.origins("model", weights), StoredTensors(path.parent))
    onnx.save(exported, str(path))


def export_fluency(source: Path, folder: Path) -> None:
    """Add the reward `fluency` of the causal model in `source` to the model folder `folder`.

    Raise ValueError if their tokenizers differ.
    """
    if (source / "tokenizer.json").read_bytes() != (folder / "tokenizer.json").read_bytes():
        raise ValueError(f"{source} and {folder} have different tokenizers")
    manifest = json.loads((folder / "model.json").read_text())
    file = "model.safetensors"
    model = graph_causal(load_file(source / file), load_causal(source).config)
    reward = Fluency(model, manifest["end_of_text_token_id"], manifest["mask_token_id"])
    exported = to_model(reward, CUDA_OPSET)
    store_once(exported, model.origins("model", file), StoredTensors(source))
    # The folder of a model is flat, and this graph alone reads these weights.
    load_external_data_for_model(exported, str(source))
    graph = folder / "fluency.onnx"
    onnx.save(exported, str(graph))
    meaning = "Log-likelihood of the text under an autoregressive model of the same size, in nats"
    entry = {"name": "fluency", "meaning": meaning, **file_entry(graph)}
    others = [one for one in manifest.get("rewards", []) if one["name"] != "fluency"]
    manifest["rewards"] = [*others, entry]
    (folder / "model.json").write_text(json.dumps(manifest, indent=2) + "\n")


def main() -> None:
    parser = command_parser("Export a causal model with its key-value cache.")
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="checkpoint.pt of a training run, or its folder")
    add("--out", type=Path, required=True, help="folder; must hold tokenizer.json")
    add("--onnx", action=argparse.BooleanOptionalAction, default=True, help="write model.onnx too")
    add("--fluency", type=Path, metavar="FOLDER", help="add the reward fluency to this model folder")
    args = parser.parse_args()
    model = load_causal(args.checkpoint)
    end = Tokenizer.from_file(str(args.out / "tokenizer.json")).token_to_id(SEPARATOR)
    weights = {name: tensor.half() for name, tensor in to_neox(model).items()}
    save_file(weights, args.out / "model.safetensors", {"format": "pt"})
    (args.out / "config.json").write_text(json.dumps(neox_config(model.config, end), indent=2) + "\n")
    if args.onnx:
        graph = graph_causal(weights, model.config)
        export_causal(graph, args.out / "model.onnx", "model.safetensors")
    if args.fluency:
        export_fluency(args.out, args.fluency)
    print(f"wrote {args.out}: {', '.join(sorted(p.name for p in args.out.iterdir()))}")


if __name__ == "__main__":
    main()
