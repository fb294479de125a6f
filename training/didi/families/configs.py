"""What the settings of a config.json mean: one function for each kind of network."""

from collections.abc import Mapping

from .errors import ConversionError
from .layout import Layout

Config = Mapping


def require(config: Config, **wanted: object) -> None:
    """Raise ConversionError unless each setting is absent or one of the wanted values (a tuple, or one)."""
    for name, value in wanted.items():
        allowed = value if isinstance(value, tuple) else (value,)
        if name in config and config[name] is not None and config[name] not in allowed:
            choices = " or ".join(map(repr, allowed))
            raise ConversionError(f"config.json: {name} is {config[name]!r}; only {choices} is supported")


def rotary_base(config: Config, default: float = 10_000.0) -> float:
    """Return the base of the rotary angles. Raise ConversionError if they are scaled."""
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    if kind != "default":
        raise ConversionError(f"config.json: rotary angles are scaled ({kind}), which is not supported")
    return float(parameters.get("rope_theta") or config.get("rope_theta") or default)


def decoder_layout(config: Config, **flags: object) -> Layout:
    """Return the layout of a block like Llama's: RMS norms, rotary positions, gated MLP."""
    require(config, hidden_act="silu", use_sliding_window=False, use_mrope=False)
    heads, blocks = config["num_attention_heads"], config["num_hidden_layers"]
    sliding = [kind for kind in config.get("layer_types") or [] if kind != "full_attention"]
    if sliding:
        only = "only 'full_attention' is supported"
        raise ConversionError(f"config.json: layer_types has {sliding[0]!r}; {only}")
    return Layout(
        vocab_size=config["vocab_size"],
        mask_id=mask_of(config),
        hidden=config["hidden_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        inner=config["intermediate_size"],
        context=config["max_position_embeddings"],
        bases=(rotary_base(config),) * blocks,
        windows=(None,) * blocks,
        activation="silu",
        gated=True,
        norm="rms",
        eps=config.get("rms_norm_eps", 1e-6),
        tied=bool(config.get("tie_word_embeddings", False)),
        **flags,
    )


def mask_of(config: Config) -> int:
    """Return the mask's id in the checkpoint, which the converter adds to config.json if a token names it."""
    if config.get("mask_token_id") is None:
        raise ConversionError("no mask: config.json has no mask_token_id, and tokenizer.json no mask token")
    return config["mask_token_id"]


def qwen3_layout(config: Config) -> Layout:
    bias = bool(config.get("attention_bias"))
    return decoder_layout(config, qk_norm=True, qkv_bias=bias, out_bias=bias)


def llada_layout(config: Config) -> Layout:
    require(
        config,
        block_type="llama",
        activation_type=("silu", "swiglu"),
        layer_norm_type="rms",
        rope=True,
        alibi=False,
        attention_layer_norm=False,
        input_emb_norm=False,
        scale_logits=False,
        include_bias=False,
        layer_norm_with_affine=True,
        multi_query_attention=False,
    )
    hidden, heads, blocks = config["d_model"], config["n_heads"], config["n_layers"]
    return Layout(
        vocab_size=config.get("embedding_size") or config["vocab_size"],
        mask_id=config.get("mask_token_id", 126_336),
        hidden=hidden,
        heads=heads,
        kv_heads=config.get("n_kv_heads") or heads,
        head_dim=hidden // heads,
        inner=config.get("mlp_hidden_size") or hidden * config.get("mlp_ratio", 4),
        context=config["max_sequence_length"],
        bases=(float(config.get("rope_theta", 10_000.0)),) * blocks,
        windows=(None,) * blocks,
        activation="silu",
        gated=True,
        norm="rms",
        eps=config.get("rms_norm_eps", 1e-5),
        qkv_bias=bool(config.get("include_qkv_bias")),
        tied=bool(config.get("weight_tying", False)),
    )


def bert_layout(config: Config) -> Layout:
    require(config, position_embedding_type="absolute", is_decoder=False, hidden_act=("gelu", "gelu_new"))
    hidden, heads, blocks = (
        config[name] for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    return Layout(
        vocab_size=config["vocab_size"],
        mask_id=mask_of(config),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        inner=config["intermediate_size"],
        context=config["max_position_embeddings"],
        bases=(0.0,) * blocks,
        windows=(None,) * blocks,
        activation="gelu" if config.get("hidden_act", "gelu") == "gelu" else "gelu_tanh",
        gated=False,
        norm="layer",
        eps=config.get("layer_norm_eps", 1e-12),
        norm_bias=True,
        post_norm=True,
        embed_norm=True,
        learned_positions=True,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        transform=True,
        transform_bias=True,
        tied=bool(config.get("tie_word_embeddings", True)),
        head_bias=True,
    )


def modernbert_layout(config: Config) -> Layout:
    require(config, hidden_activation="gelu", classifier_activation="gelu")
    hidden, heads, blocks = (
        config[name] for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    every = config.get("global_attn_every_n_layers", 3)
    kinds = config.get("layer_types") or [
        "sliding_attention" if i % every else "full_attention" for i in range(blocks)
    ]
    angles, window = config.get("rope_parameters") or {}, config.get("local_attention", 128) // 2
    bases = {
        "full_attention": rotary_base(
            {"rope_parameters": angles.get("full_attention"), "rope_theta": config.get("global_rope_theta")},
            160_000.0,
        ),
        "sliding_attention": rotary_base(
            {"rope_parameters": angles.get("sliding_attention"), "rope_theta": config.get("local_rope_theta")}
        ),
    }
    return Layout(
        vocab_size=config["vocab_size"],
        mask_id=mask_of(config),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        inner=config["intermediate_size"],
        context=config["max_position_embeddings"],
        bases=tuple(bases[kind] for kind in kinds),
        windows=tuple(window if kind == "sliding_attention" else None for kind in kinds),
        activation="gelu",
        gated=True,
        norm="layer",
        eps=config.get("norm_eps", 1e-5),
        norm_bias=bool(config.get("norm_bias", False)),
        first_norm=False,
        embed_norm=True,
        qkv_bias=bool(config.get("attention_bias", False)),
        out_bias=bool(config.get("attention_bias", False)),
        mlp_bias=bool(config.get("mlp_bias", False)),
        transform=True,
        transform_bias=bool(config.get("classifier_bias", False)),
        tied=bool(config.get("tie_word_embeddings", True)),
        head_bias=bool(config.get("decoder_bias", True)),
    )
