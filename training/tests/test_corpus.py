"""The corpus, its tokenizer, and text to calibrate on."""

import pytest
from tokenizers import Tokenizer, models

from conftest import TOKENIZER
from didi.corpus import SHARES, calibration_windows, clean, documents, raw_documents
from didi.tokenizer import MASK, RESIDUES, residue_tokenizer, train_tokenizer


def test_cleaning_removes_fragments_and_front_matter_only():
    assert clean("mama was packing. She left.") == ""
    assert clean('Tom ran. "Wait!" said Ann. Then the') == 'Tom ran. "Wait!" said Ann.'
    assert clean("Tom ran home.\n\nThe End") == "Tom ran home.\n\nThe End"
    story = "\n\n".join(["Once there was a bear."] * 1000)
    assert clean(f"12mo. Cloth. Illustrated.\n\n{story}") == story
    story = "The book was published. It was illustrated."
    assert clean(story) == story


def test_splits_are_by_document_and_disjoint():
    for source in SHARES:
        splits = {name: set(documents(source, name)) for name in ("train", "validation", "test")}
        assert all(splits.values()), source
        assert not splits["train"] & (splits["validation"] | splits["test"])
        kept = sum(len(texts) for texts in splits.values())
        assert kept >= 0.98 * len(raw_documents(source)), "cleaning drops fragments, not documents"


def test_the_shipped_tokenizer_is_what_the_code_trains():
    fresh = train_tokenizer(Tokenizer.from_file(str(TOKENIZER)).get_vocab_size())
    assert fresh.to_str() == Tokenizer.from_file(str(TOKENIZER)).to_str()


def test_tokenizer_round_trips_any_text():
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    for text in ("Once upon a time", "naïve café 🙂 日本", "\n\n  two  spaces\t"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.token_to_id(MASK) == tokenizer.get_vocab_size() - 1


def test_a_token_of_a_protein_is_a_residue():
    tokenizer = residue_tokenizer()
    assert tokenizer.get_vocab_size() == len(RESIDUES) + 2 == tokenizer.token_to_id(MASK) + 1
    sequences = documents("7-proteins.fasta.xz", "test")
    assert all(40 <= len(sequence) <= 254 for sequence in sequences)
    for sequence in sequences[:20]:
        ids = tokenizer.encode(sequence).ids
        assert len(ids) == len(sequence) and tokenizer.decode(ids) == sequence


def test_text_to_calibrate_on(tmp_path):
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "text.txt").write_text("ab" * 100 + "<|endoftext|>" + "a" * 20)
    length = 64
    windows = calibration_windows(tmp_path / "tokenizer.json", length, 60, 5, tmp_path / "text.txt")
    assert windows.shape == (222 // length, length) and windows[0, :4].tolist() == [0, 1, 0, 1]
    (tmp_path / "text.txt").write_text("ab")
    with pytest.raises(ValueError, match="has 3 tokens, and int8 is calibrated on windows of"):
        calibration_windows(tmp_path / "tokenizer.json", length, 60, 5, tmp_path / "text.txt")
