"""Make a byte-level BPE tokenizer: `python -m didi.tokenizer --out FILE`.

Of stories it is trained: most words of the simple stories become one token, because the pieces of a word that
are drawn in parallel do not depend on each other. Of proteins a token is a residue.
"""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from .command import add_corpus_flag, command_parser
from .corpus import CORPORA, SEPARATOR, documents, raw_documents, split_of

MASK = "[MASK]"
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
# How often each file is counted. Files that were added to the corpus later take no part, so that ids stay the
# same.
REPEATS = {"1-tinystories.txt.xz": 6, "2-children.txt.xz": 1, "3-fairytales.txt.xz": 1}


def train_tokenizer(vocab_size: int) -> Tokenizer:
    """Return a tokenizer of exactly `vocab_size` ids; the last two are end-of-text and the mask.

    Raise ValueError if the corpus is too small for that size.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (
        text
        for name, repeats in REPEATS.items()
        for _ in range(repeats)
        for text in raw_documents(name)
        if split_of(text) == "train"
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([SEPARATOR, MASK])
    if tokenizer.get_vocab_size() != vocab_size or tokenizer.token_to_id(MASK) != vocab_size - 1:
        raise ValueError(f"the corpus is too small for a vocabulary of {vocab_size}")
    return tokenizer


def residue_tokenizer() -> Tokenizer:
    """Return a tokenizer of the 20 amino acids, end-of-text and the mask."""
    tokenizer = Tokenizer(models.BPE(vocab={residue: i for i, residue in enumerate(RESIDUES)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([SEPARATOR, MASK])
    return tokenizer


def main() -> None:
    parser = command_parser(__doc__)
    add_corpus_flag(parser)
    parser.add_argument("--vocab-size", type=int, default=4096, help="number of ids, of stories")
    parser.add_argument("--out", type=Path, required=True, help="the tokenizer.json to write")
    args = parser.parse_args()
    tokenizer = residue_tokenizer() if args.corpus == "proteins" else train_tokenizer(args.vocab_size)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(args.out))
    for name in CORPORA[args.corpus]:
        texts = documents(name, "validation")
        words = [word for text in texts for word in text.split()]
        stripped = [" " + word.strip(".,!?\"';:") for word in words]
        whole = sum(len(encoding.ids) == 1 for encoding in tokenizer.encode_batch(stripped))
        tokens = sum(len(e.ids) for e in tokenizer.encode_batch(texts))
        characters = sum(map(len, texts)) / tokens
        print(f"{name}: {characters:.2f} characters a token, {whole / len(words):.1%} whole words")


if __name__ == "__main__":
    main()
