"""A real model as a test bed: what does compressing all-MiniLM-L6-v2 cost? numpy only.

    python minilm.py dense                       the model itself, and the floor: no layer at all
    python minilm.py eval FILE ..                the same questions to other files, dense or trains
    python minilm.py --number noun.B.mrr eval FILE       one number, for `ttc compress --eval`
    python minilm.py calibrate -o FILE           what flows into each matrix, for `ttc --inputs`
    python minilm.py used -o FILE                the model without what the tasks never touch

The questions come from WordNet. A query is the example sentence of a synset, its document the
synset's lemmas and definition (task A) or the definition alone (task B), to be found among those of
1000 synsets. A is lexical: two thirds of its score are there without any layer, so read B. Cosine
is between the embeddings of a file and those of the model, over queries and documents A of nouns.
Nouns served for development, verbs were never looked at.

The model and WordNet: see minilm.sh, which fetches both.
"""

import argparse
import hashlib
import os
import re
import unicodedata

import numpy as np

import load_tt
from record_inputs import Moments

HERE = os.path.dirname(os.path.abspath(__file__))
HEADS, MAX_TOKENS, POOL = 12, 32, 1000
CLS, SEP, UNKNOWN = 101, 102, 100
TABLE = "embeddings.word_embeddings"


# ------------------------------------------------------------------------------------------ tokens


class Spacing(dict):
    """For str.translate: blanks around punctuation and ideographs; accents and control vanish."""

    def __missing__(self, code):
        char = chr(code)
        kind = unicodedata.category(char)
        ideograph = 0x3400 <= code <= 0x4DBF or 0x4E00 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF
        if char.isspace():
            self[code] = " "
        elif kind in ("Mn", "Cc", "Cf") or code == 0xFFFD:
            self[code] = ""
        elif kind[0] == "P" or ideograph or 0x20000 <= code <= 0x2FA1F:
            self[code] = f" {char} "
        elif code < 128 and not char.isalnum():
            self[code] = f" {char} "
        else:
            self[code] = char
        return self[code]


class WordPiece:
    """The uncased tokeniser of BERT: words at blanks, then the longest known pieces."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.ids = {word.rstrip("\n"): number for number, word in enumerate(file)}
        self.spacing, self.known = Spacing(), {}

    def pieces(self, word):
        found, begin = [], 0
        while begin < len(word) and len(word) <= 100:
            for end in range(len(word), begin, -1):
                piece = ("##" if begin else "") + word[begin:end]
                if piece in self.ids:
                    break
            else:
                return [UNKNOWN]
            found.append(self.ids[piece])
            begin = end
        return found or [UNKNOWN]

    def __call__(self, text):
        """Numbers of the tokens, [CLS] and [SEP] included, at most MAX_TOKENS."""
        found = []
        for word in unicodedata.normalize("NFD", text).translate(self.spacing).lower().split():
            if word not in self.known:
                self.known[word] = self.pieces(word)
            found += self.known[word]
        return (CLS, *found[: MAX_TOKENS - 2], SEP)


# ------------------------------------------------------------------------------------------- model


def erf(x):
    """Rational minimax approximation over [-4, 4], within 4e-7; x is overwritten."""
    np.clip(x, -4, 4, out=x)
    square = x * x
    above = np.full_like(x, -2.72614225801306e-10)
    for c in (
        2.77068142495902e-08,
        -2.10102402082508e-06,
        -5.69250639462346e-05,
        -7.34990630326855e-04,
        -2.95459980854025e-03,
        -1.60960333262415e-02,
    ):
        above *= square
        above += np.float32(c)
    below = np.full_like(x, -1.45660718464996e-05)
    for c in (
        -2.13374055278905e-04,
        -1.68282697438203e-03,
        -7.37332916720468e-03,
        -1.42647390514189e-02,
    ):
        below *= square
        below += np.float32(c)
    above *= x
    above /= below
    return above


def gelu(x):
    """x (1 + erf(x / sqrt 2)) / 2 in place, in pieces that stay in the cache."""
    flat = x.reshape(-1)
    for begin in range(0, len(flat), 1 << 15):
        part = flat[begin : begin + (1 << 15)]
        factor = erf(part * np.float32(np.sqrt(0.5)))
        factor += 1
        factor *= np.float32(0.5)
        part *= factor
    return x


class Encoder:
    """The forward pass of BERT: position after each block, mean over all tokens, norm 1."""

    def __init__(self, tensors, record=None):
        self.tensors, self.record = tensors, record
        self.depth = 0
        while f"encoder.layer.{self.depth}.output.dense.weight" in tensors:
            self.depth += 1

    def linear(self, name, x):
        if self.record:
            self.record(name, x)
        return x @ self.tensors[name + ".weight"].T + self.tensors[name + ".bias"]

    def normalise(self, name, x):
        x = x - x.mean(1, keepdims=True)
        x /= np.sqrt(np.einsum("ij,ij->i", x, x) / x.shape[1] + np.float32(1e-12))[:, None]
        return x * self.tensors[name + ".weight"] + self.tensors[name + ".bias"]

    def attention(self, name, x, length):
        def heads(part):
            y = self.linear(f"{name}.self.{part}", x)
            return y.reshape(-1, length, HEADS, y.shape[1] // HEADS).transpose(0, 2, 1, 3)

        q, k, v = heads("query"), heads("key"), heads("value")
        scores = q @ k.transpose(0, 1, 3, 2) * np.float32(q.shape[3] ** -0.5)
        scores = np.exp(scores - scores.max(3, keepdims=True))
        scores /= scores.sum(3, keepdims=True)
        mixed = (scores @ v).transpose(0, 2, 1, 3).reshape(len(x), -1)
        return self.normalise(
            f"{name}.output.LayerNorm", self.linear(f"{name}.output.dense", mixed) + x
        )

    def __call__(self, ids):
        """Embeddings (batch, width) of token numbers (batch, length), all sentences as long."""
        batch, length = ids.shape
        x = self.tensors[TABLE + ".weight"][ids]
        x = x + self.tensors["embeddings.position_embeddings.weight"][:length]
        x = (x + self.tensors["embeddings.token_type_embeddings.weight"][0]).reshape(
            batch * length, -1
        )
        x = self.normalise("embeddings.LayerNorm", x)
        for number in range(self.depth):
            name = f"encoder.layer.{number}"
            x = self.attention(f"{name}.attention", x, length)
            inner = gelu(self.linear(f"{name}.intermediate.dense", x))
            x = self.normalise(
                f"{name}.output.LayerNorm", self.linear(f"{name}.output.dense", inner) + x
            )
        mean = x.reshape(batch, length, -1).mean(1)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    def embed(self, sentences):
        """Embeddings of tokenised sentences, in batches of one length and about 1000 tokens."""
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        width = self.tensors[TABLE + ".weight"].shape[1]
        out, begin = np.empty((len(sentences), width), np.float32), 0
        while begin < len(order):
            length = len(sentences[order[begin]])
            end = begin + 1
            while end < len(order) and (end - begin + 1) * length <= 1024:
                if len(sentences[order[end]]) != length:
                    break
                end += 1
            out[order[begin:end]] = self(np.array([sentences[i] for i in order[begin:end]]))
            begin = end
        return out


def floor_of(tensors):
    """The model without its layers: the mean of the input embeddings."""
    return {name: value for name, value in tensors.items() if name.startswith("embeddings.")}


def load(path):
    """Tensors of a checkpoint in float32; layers stored as trains become matrices again."""
    tensors, meta = load_tt.read(path)
    layers = {name.split(".cores.")[0] for name in tensors if ".cores." in name}
    dense = {name: load_tt.matrix(tensors, meta, name) for name in layers}
    tensors = {name: value for name, value in tensors.items() if value.dtype.kind == "f"}
    tensors.update((name + ".weight", value) for name, value in dense.items())
    return {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}


# ----------------------------------------------------------------------------------------- WordNet


def fnv1a(text):
    state = 2166136261
    for byte in text.encode("latin-1"):
        state = (state ^ byte) * 16777619 & 0xFFFFFFFF
    return state


class Synset:
    """One line of data.POS; what has a definition and an example may become a question."""

    def __init__(self, pos, line):
        head, _, gloss = line.partition(" | ")
        fields, gloss = head.split(" "), gloss.strip()
        words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        words = [re.sub(r"\(.*\)$", "", word).replace("_", " ") for word in words]
        self.key = pos + fields[0]
        self.definition = gloss.partition('"')[0].strip().rstrip("; ")
        self.document = ", ".join(words) + ": " + self.definition
        self.example = next((span for span in re.findall('"([^"]*)"', gloss) if span), None)


def synsets(folder, pos, pool=POOL):
    """The pool of the tasks, those with the lowest hashes, and all other synsets."""
    with open(os.path.join(folder, "data." + pos), encoding="latin-1") as file:
        found = [Synset(pos, line) for line in file if not line.startswith("  ")]
    usable = [synset for synset in found if synset.definition and synset.example]
    chosen = sorted(usable, key=lambda synset: (fnv1a(synset.key), synset.key))[:pool]
    taken = {synset.key for synset in chosen}
    return chosen, [synset for synset in found if synset.key not in taken]


def training_texts(folder, count):
    """Documents A and examples of nouns, adjectives and adverbs that stand in no pool."""
    found = []
    for pos in ("noun", "adj", "adv"):
        for synset in synsets(folder, pos)[1]:
            found.append((fnv1a("t" + synset.key), synset.document))
            if synset.example:
                found.append((fnv1a("e" + synset.key), synset.example))
    return [text for _, text in sorted(found)[:count]]


# ------------------------------------------------------------------------------------------- tasks


class Tasks:
    """Queries and documents of one part of speech, and what was embedded before."""

    def __init__(self, folder, pos, tokenise, pool):
        chosen, _ = synsets(folder, pos, pool)
        self.pos = pos
        self.texts = {
            "query": [tokenise(synset.example) for synset in chosen],
            "A": [tokenise(synset.document) for synset in chosen],
            "B": [tokenise(synset.definition) for synset in chosen],
        }

    def embed(self, encoder, parts):
        both = encoder.embed(sum((self.texts[part] for part in parts), []))
        return dict(zip(parts, np.split(both, len(parts))))


def ranks(queries, documents):
    """Place of each query's own document, 1 = first; ties count against the query."""
    scores = queries @ documents.T
    return (scores >= np.diag(scores)[:, None]).sum(1)


def measure(tasks, encoder, parts, reference):
    """Numbers by name, such as noun.B.mrr; the reference is what the model itself embeds."""
    got = tasks.embed(encoder, parts)
    numbers = {}
    for task in parts[1:]:
        place = ranks(got["query"], got[task])
        name = f"{tasks.pos}.{task}"
        numbers.update({name + ".r@1": np.mean(place <= 1), name + ".r@10": np.mean(place <= 10)})
        numbers[name + ".mrr"] = np.mean(1 / place)
        numbers[name + ".each"] = 1 / place
    if reference is not None:
        numbers["cosine"] = np.mean([np.sum(got[p] * reference[p], 1).mean() for p in reference])
    return numbers


COLUMNS = (
    ("noun A r@1 / r@10 / MRR", ("noun.A.r@1", "noun.A.r@10", "noun.A.mrr")),
    ("noun B r@1 / MRR", ("noun.B.r@1", "noun.B.mrr")),
    ("verb A r@1 / MRR", ("verb.A.r@1", "verb.A.mrr")),
    ("verb B MRR", ("verb.B.mrr",)),
    ("cosine", ("cosine",)),
)


def head():
    titles = ["model", "MB", "of fp32", "changed matrices", *(title for title, _ in COLUMNS)]
    return "| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|"


def row(name, size, whole, share, numbers):
    """A row of the table; sizes in bytes, 0 = says nothing; whole: of the model in fp32."""
    cells = [" / ".join(f"{numbers[n]:.3f}" for n in names) for _, names in COLUMNS[:-1]]
    sizes = [f"{size / 1e6:.2f}", f"{100 * size / whole:.1f} %"] if size else ["-", "-"]
    return "| " + " | ".join([name, *sizes, share, *cells, f"{numbers['cosine']:.4f}"]) + " |"


def difference(numbers, others):
    """Mean of the four MRRs less that of others, and its standard error: both answered the same
    queries, whose A and B go together."""
    mean = square = 0
    for pos in ("noun", "verb"):
        change = sum(numbers[f"{pos}.{t}.each"] - others[f"{pos}.{t}.each"] for t in "AB") / 4
        mean += change.mean()
        square += change.var() / len(change)
    return f"{mean:+.4f} ± {square**0.5:.4f}"


def share_of(path):
    """Bytes of all trains of a file against those of the float32 matrices they stand for."""
    tensors, meta = load_tt.read(path)
    layers = {name.split(".cores.")[0] for name in tensors if ".cores." in name}
    parts = [n for n in tensors if n.split(".cores.")[0].split(".scale")[0] in layers]
    stored = sum(tensors[name].nbytes for name in parts)
    dense = sum(4 * np.prod(load_tt.train(tensors, meta, name)[1]) for name in layers)
    return f"{100 * stored / dense:.1f} %" if layers else "-"


class Bench:
    """The tasks that the wanted numbers need; embeddings of the dense model are kept on disk."""

    def __init__(self, options):
        self.model = os.path.join(options.model, "model.safetensors")
        self.tokenise = WordPiece(os.path.join(options.model, "vocab.txt"))
        self.options, wanted = options, options.number or ""
        self.parts = {pos: ["query", "A", "B"] for pos in ("noun", "verb")}
        if wanted == "cosine":
            self.parts = {"noun": ["query", "A"]}
        elif wanted:
            pos, task, _ = wanted.split(".")
            self.parts = {pos: ["query", task]}
        self.tasks = {
            pos: Tasks(options.wordnet, pos, self.tokenise, options.pool) for pos in self.parts
        }
        self.reference = self.dense_embeddings() if wanted in ("", "cosine") else None

    def dense_embeddings(self):
        parts, nouns = ["query", "A"], self.tasks["noun"]
        with open(self.model, "rb") as file:
            key = hashlib.file_digest(file, "sha256")
        key.update(repr([nouns.texts[part] for part in parts]).encode())
        path = os.path.join(self.options.cache, f"minilm-{key.hexdigest()[:16]}.npy")
        if os.path.exists(path):
            both = np.load(path)
        else:
            both = np.stack(list(nouns.embed(Encoder(load(self.model)), parts).values()))
            os.makedirs(self.options.cache, exist_ok=True)
            np.save(path, both)
        return dict(zip(parts, both))

    def numbers(self, tensors):
        encoder, found = Encoder(tensors), {}
        for pos, parts in self.parts.items():
            reference = self.reference if pos == "noun" else None
            found.update(measure(self.tasks[pos], encoder, parts, reference))
        return found


# ------------------------------------------------------------------------------------- calibration


def calibrate(options):
    """Moments of the inputs of all matrices over 3000 texts, look-ups of the table over 24000."""
    tokenise = WordPiece(os.path.join(options.model, "vocab.txt"))
    tensors = load(os.path.join(options.model, "model.safetensors"))
    sentences = [tokenise(text) for text in training_texts(options.wordnet, 24000)]
    moments = {}

    def record(name, x):
        if not name.endswith(("self.key", "self.value")):  # these see what the query sees
            moments.setdefault(name, Moments()).add(x)

    Encoder(tensors, record).embed(sentences[:3000])
    for name in [name for name in moments if name.endswith("self.query")]:
        for other in ("key", "value"):
            moments[name.replace("query", other)] = moments[name]
    counts = np.bincount(np.concatenate(sentences), minlength=len(tensors[TABLE + ".weight"]))
    found = {TABLE + ".row_weights": (counts + 0.5).astype(np.float32)}
    for name, moment in moments.items():
        found.update(moment.tensors(name))
    load_tt.write(options.output, found)
    tokens = next(iter(moments.values())).count
    print(f"{options.output}: {len(moments)} matrices, 3000 texts, {tokens} tokens;", end=" ")
    print(f"row weights of {len(sentences)} texts")


def used_tensors(path):
    """What the tasks use: no pooler, no list of positions. All sizes are without those."""
    tensors, _ = load_tt.read(path)
    names = [name for name in tensors if not name.startswith("pooler.") and "_ids" not in name]
    return {name: tensors[name] for name in names}


def used(options):
    path = os.path.join(options.model, "model.safetensors")
    load_tt.write(options.output, used_tensors(path))


# --------------------------------------------------------------------------------------------- main


def evaluate(options):
    bench, dense = Bench(options), options.command == "dense"
    if not options.number:
        whole = sum(tensor.nbytes for tensor in used_tensors(bench.model).values())
        if not options.name:
            print(head())
    for path in [bench.model] if dense else options.files:
        tensors = load(path)
        numbers = bench.numbers(tensors)
        if options.number:
            print(f"{numbers[options.number]:.6f}")
            continue
        size = whole if dense else os.path.getsize(path)
        name = "dense" if dense else options.name or os.path.basename(path)
        if options.against:
            other = bench.numbers(load(options.against))
            name += f"; mean MRR {difference(numbers, other)}"
        print(row(name, size, whole, share_of(path), numbers), flush=True)
        if dense:
            print(row("floor: no layers", 0, whole, "-", bench.numbers(floor_of(tensors))))


def main():
    build = os.path.join(HERE, "..", "build", "minilm")
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    add = parser.add_argument
    add("command", choices=("dense", "eval", "calibrate", "used"))
    add("files", nargs="*", metavar="FILE")
    add("-o", "--output", help="where calibrate and used write")
    add("--model", default=f"{build}/model", help="folder of model.safetensors and vocab.txt")
    add("--wordnet", default=f"{build}/wordnet", help="folder of data.noun, data.verb, ..")
    add("--cache", default=build, help="folder for embeddings of the dense model")
    add("--pool", type=int, default=POOL, help="synsets per task (default 1000)")
    add("--number", help="print this number alone, such as noun.B.mrr or cosine")
    add("--name", help="what the row of a table is called; no heading then")
    add("--against", metavar="FILE", help="the name also tells how the mean MRR differs from FILE's")
    options = parser.parse_intermixed_args()
    if (options.command == "eval") != bool(options.files):
        parser.error("eval takes one or more files, other commands none")
    if (options.command in ("calibrate", "used")) != bool(options.output):
        parser.error("-o goes with calibrate and used")
    {"calibrate": calibrate, "used": used}.get(options.command, evaluate)(options)


if __name__ == "__main__":
    main()
