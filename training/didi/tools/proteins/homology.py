"""What is known of a sequence: the Pfam families it belongs to, and the nearest training sequence.

Needs requirements-proteins.txt, and the program `mmseqs`.
"""

import csv
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

SHORTEST = 10  # residues; a shorter sequence is like none
ALIKE = 1e-3  # E-value of a nearest sequence


def profiles() -> Path:
    """Return the file of family profiles. Raise SystemExit if requirements-proteins.txt is not installed."""
    spec = find_spec("gecco")
    if spec is None or spec.origin is None or find_spec("pyhmmer") is None:
        raise SystemExit("the families are not installed: pip install -r training/requirements-proteins.txt")
    return Path(spec.origin).parent / "hmmer" / "Pfam.h3m"


def with_family(sets: Sequence[Sequence[str]], threads: int = 1) -> list[list[bool]]:
    """Return for each sequence of each set whether a Pfam family reaches its gathering threshold on it."""
    file = profiles()
    import pyhmmer

    alphabet = pyhmmer.easel.Alphabet.amino()
    found = [[False] * len(sequences) for sequences in sets]
    block = pyhmmer.easel.DigitalSequenceBlock(alphabet)
    for i, sequences in enumerate(sets):
        for j, sequence in enumerate(sequences):
            if len(sequence) >= SHORTEST:
                text = pyhmmer.easel.TextSequence(name=f"{i} {j}".encode(), sequence=sequence)
                block.append(text.digitize(alphabet))
    with pyhmmer.plan7.HMMFile(file) as families:
        for hits in pyhmmer.hmmsearch(families, block, cpus=threads, bit_cutoffs="gathering"):
            for hit in hits.included:
                name = hit.name if isinstance(hit.name, str) else hit.name.decode()
                i, j = map(int, name.split())
                found[i][j] = True
    return found


def fasta(named: Iterator[tuple[str, str]]) -> str:
    """Return names and sequences as FASTA."""
    return "".join(f">{name}\n{sequence}\n" for name, sequence in named)


def nearest(
    sets: Sequence[Sequence[str]], training: Sequence[str], threads: int = 1
) -> list[list[float | None]]:
    """Return for each sequence of each set its identity, 0 to 1, with the training sequence that aligns best.

    None where none aligns with an E-value below ALIKE. Raise SystemExit if `mmseqs` is missing or fails.
    """
    if shutil.which("mmseqs") is None:
        raise SystemExit("mmseqs is missing: install Debian's package mmseqs2")
    found: list[list[float | None]] = [[None] * len(sequences) for sequences in sets]
    with tempfile.TemporaryDirectory() as folder:
        query, target, out = (Path(folder) / name for name in ("query.fasta", "target.fasta", "hits.tsv"))
        query.write_text(
            fasta(
                (f"{i}_{j}", sequence)
                for i, sequences in enumerate(sets)
                for j, sequence in enumerate(sequences)
                if len(sequence) >= SHORTEST
            )
        )
        target.write_text(fasta((str(i), sequence) for i, sequence in enumerate(training)))
        command = ["mmseqs", "easy-search", query, target, out, Path(folder) / "work", "-e", str(ALIKE)]
        command += ["--threads", str(threads), "--format-output", "query,fident,evalue", "-v", "1"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"mmseqs failed: {(done.stdout + done.stderr).strip()[-500:]}")
        best: dict[str, float] = {}
        for name, identity, evalue in csv.reader(out.open(), delimiter="\t"):
            if float(evalue) < best.get(name, ALIKE):
                best[name] = float(evalue)
                i, j = map(int, name.split("_"))
                found[i][j] = float(identity)
    return found
