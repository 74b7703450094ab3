"""Where text, model and activations come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.gguf_header import is_gguf
from saeflow.config.section import (
    Complaint,
    InputPath,
    InputPaths,
    LocalPath,
    Name,
    Section,
    Text,
    Unique,
    refuse,
)
from saeflow.config.sections.published import (
    Dataset,
    Fetchable,
    Package,
    Published,
    Source,
    disputes,
)
from saeflow.config.text_files import kind_of


class Tokens(Section):
    """How many tokens each split of the corpus holds, BOS included. The splits never share text."""

    model: int = Field(default=0, ge=0)
    """Tokens to train the model on; only for a model trained here."""
    sae: int = Field(default=600_000, ge=1024)
    """Tokens whose activations are cached to train SAEs."""
    eval: int = Field(default=65_536, ge=1024)
    """Tokens for every evaluation: loss, scale search, SAE metrics."""


class Corpus(Section):
    """Where text comes from."""

    kind: Literal["tales", "text"] = "tales"
    """``tales``: the embedded story grammar, infinite and with known truth. ``text``: local files,
    or a data set of a hub."""
    path: InputPaths | None = None
    """``text``: a .txt, .jsonl, .ndjson, .json, .csv, .tsv, .parquet or .arrow file, alone or
    packed as .gz, .zst, .bz2 or .xz, or a folder of them, in the folder that Snakemake works in or
    else in the checkout; or a list of such files and folders. ``${NAME}`` is read from the
    environment."""
    dataset: Dataset | None = None
    """``text``: a data set of a hub, in place of `path`."""
    field: Text | Annotated[list[Text], Field(min_length=1), Unique] = "text"
    """``text``: the field or column that holds the text in all files but .txt; one in another field
    is named with a dot, ``meta.text``. Several, such as ``[prompt, completion]``, are one text.
    Where the files have no field of the default's name, and no other is named, ``messages`` or
    ``conversations`` are read as `messages`, or ``input_ids`` or ``tokens`` as `token_ids`."""
    messages: Text | None = None
    """``text``: in place of `field`, the one that holds chats, lists of messages with ``role`` and
    ``content`` or, as ShareGPT has them, ``from`` and ``value``. The model's chat template writes
    them."""
    token_ids: Text | None = None
    """``text``: in place of `field`, the one that holds lists of token ids, of the model's own
    tokenizer. What a field ``attention_mask`` beside it has 0 for is left out."""
    control_tokens: bool = False
    """``text``: whether a control token that is written out in a text, such as
    ``<|endoftext|>``, is that token, as in chats that a template has written already. If false, it
    is the letters that it is made of."""
    separator: str = Field(default="\n\n", min_length=1)
    """``text``: what stands between documents in a .txt file."""
    order: Literal["mixed", "files"] = "mixed"
    """``text``: of several files. ``mixed``: documents of all files in turn, of each as many as its
    size says, or `weights`; ``files``: one file after another, as `path` lists them, those of a
    folder by their names."""
    weights: dict[Text, Annotated[float, Field(ge=0)]] | None = Field(default=None, min_length=1)
    """``text``: shares of the tokens, by patterns of the names of the files in the folder or data
    set, such as ``{"code/*": 0.3, "*": 0.7}``. The first pattern that matches a file counts; 0
    leaves files out. Of several paths in `path` the last part counts: ``{"chats.jsonl": 0.4,
    "books/*": 0.6}``."""
    shuffle: int = Field(default=0, ge=0, le=1_000_000)
    """``text``: the documents among which each next one is drawn, which are held in memory; 0
    leaves the order of the files."""
    join: bool = True
    """``text``: fill blocks with documents one after another, BOS between them. If false, no two
    documents share a block, and what does not fill a block of its own is left out."""
    context: int = Field(default=64, ge=8, le=131_072)
    """Tokens per block, BOS included."""
    tokens: Tokens = Tokens()
    """How much of it each split holds."""

    @model_validator(mode="after")
    def _agrees(self) -> Corpus:
        complaints = []
        if self.kind == "text" and not (self.path or self.dataset):
            reason = "is needed for kind 'text'; name a file of text or a folder, or give dataset"
            complaints.append(("path", reason))
        if self.path and self.dataset:
            reason = "stands beside path; give one of them (null undoes a key of an earlier file)"
            complaints.append(("dataset", reason))
        for key in ("path", "dataset"):
            if self.kind == "tales" and getattr(self, key):
                reason = f"kind 'tales' reads no file; remove {key} or set kind: text"
                complaints.append((key, reason))
        complaints += self._about_reading()
        for split in ("sae", "eval"):
            if (tokens := getattr(self.tokens, split)) < self.context:
                reason = f"{tokens} is less than one block of context {self.context}"
                complaints.append((f"tokens.{split}", reason))
        refuse(complaints)
        return self

    def _about_reading(self) -> list[Complaint]:
        complaints = []
        named = [key for key in ("messages", "token_ids") if getattr(self, key)]
        named += ["field"] if self.field != "text" else []
        if len(named) > 1:
            reason = f"stands beside {' and '.join(named[1:])}; give one of them"
            complaints.append((named[0], reason))
        if self.weights and self.order == "files":
            reason = "mixes files, and order: files does not; remove one of them"
            complaints.append(("weights", reason))
        if self.weights and not any(self.weights.values()):
            complaints.append(("weights", "leaves every file out; give one more than 0"))
        if self.weights and isinstance(self.path, str) and kind_of(self.path):
            reason = "needs several files; name a folder or a list of files in path, or remove it"
            complaints.append(("weights", reason))
        return complaints

    @property
    def paths(self) -> list[str]:
        """The files and folders of `path`."""
        return [self.path] if isinstance(self.path, str) else list(self.path or [])

    @property
    def fields(self) -> tuple[str, ...]:
        """The names in `field`."""
        return (self.field,) if isinstance(self.field, str) else tuple(self.field)

    @property
    def names_fields(self) -> bool:
        """Whether any key says what of a record is read."""
        return bool(self.messages or self.token_ids) or self.field != "text"


class ModelTraining(Section):
    """A small Llama-architecture model trained on the split ``model`` of the corpus."""

    d_model: int = Field(default=96, ge=8, le=8192)
    """Width of the residual stream."""
    n_layers: int = Field(default=4, ge=1, le=128)
    """Number of layers."""
    n_heads: int = Field(default=4, ge=1, le=128)
    """Attention heads per layer; they share ``d_model`` evenly."""
    d_mlp: int = Field(default=256, ge=8, le=65_536)
    """Hidden width of the gated MLP."""
    batch_size: int = Field(default=32, ge=1)
    """Blocks per step."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the split."""
    learning_rate: float = Field(default=3e-3, gt=0, lt=1)
    """Peak of a warm-up and cosine schedule (AdamW)."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps over which the learning rate rises to its peak."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of AdamW."""

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelTraining:
        if self.d_model % self.n_heads or (self.d_model // self.n_heads) % 2:
            reason = f"{self.n_heads} heads do not give d_model {self.d_model} an even head width"
            refuse([("n_heads", reason)])
        return self


class Tuning(Section):
    """A copy of another model of the study, tuned here on pairs of prompt and answer. Only the
    answers' tokens count in the loss; weights are float32."""

    of: Name | None = None
    """The model that is copied; by default the study's own. It may not be a tuned one itself."""
    path: InputPath
    """A YAML file of pairs: ``workflow/organisms/README.md`` says what it holds."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of the pairs of each label that is not learned, on which both models are measured."""
    phrases: list[Text] = Field(default=[])
    """How answers begin that show what is taught; how often they do is counted before and
    after."""
    batch_size: int = Field(default=8, ge=1)
    """Pairs per step."""
    epochs: int = Field(default=2, ge=1)
    """Passes over the pairs."""
    learning_rate: float = Field(default=3e-5, gt=0, lt=1)
    """Peak of a warm-up and cosine schedule (AdamW)."""
    warmup_steps: int = Field(default=10, ge=0)
    """Steps over which the learning rate rises to its peak."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW."""
    new_tokens: int = Field(default=24, ge=1)
    """Tokens of the answers in which phrases are sought."""


class Model(Section):
    """The language model: trained here, or local, or fetched from a hub or a package, or a tuned
    copy of another."""

    name: Name
    """Its name in file paths."""
    train: ModelTraining | None = None
    """Train it here; only on the corpus ``tales``. What saeflow comes with is what the default
    study's keys train: with these, seed and corpus included, it is not trained but taken."""
    path: LocalPath | None = None
    """A Hugging Face checkpoint directory, or a .gguf file, of which one is made. ``${NAME}`` is
    read from the environment."""
    tune: Tuning | None = None
    """A copy of another model, tuned here."""
    published: Published | None = None
    """A checkpoint on a hub."""
    package: Package | None = None
    """A .gguf file in a package of Python, in place of `published`."""
    source: Source = "auto"
    """``auto``: what is on disk already, else ``published`` or ``package``, else ``train``,
    ``path`` or ``tune``. ``compute`` and ``fetch`` insist: ``compute`` also trains a model that
    saeflow comes with."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights while running. A processor without instructions for 16 bits computes in
    float32, with twice the memory."""

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        given = [key for key in ("train", "path", "tune") if getattr(self, key) is not None]
        if len(given) > 1 or not (given or self.fetchable):
            this = f"{' and '.join(given) or 'none'} (null undoes a key of an earlier file)"
            choice = "give one of train, path, tune, published and package"
            refuse([("", f"{choice}; this gives {this}")])
        if self.published and self.package:
            reason = (
                "stands beside published; give one of them (null undoes a key of an earlier file)"
            )
            refuse([("package", reason)])
        refuse(disputes(self.fetchable, self.source, None if given else "train, path or tune"))
        return self

    @property
    def is_gguf(self) -> bool:
        """Whether `path` is a file that a checkpoint is made of."""
        return is_gguf(self.path)

    @property
    def fetchable(self) -> Fetchable | None:
        """Where it may be fetched from, if anywhere."""
        return self.published or self.package


class Activations(Section):
    """The cache of activations over the split ``sae``, at every hook from the same forward
    passes."""

    format: Literal["parquet", "hdf5"] = "parquet"
    """Of the shards' files."""
    compress: bool = False
    """Compress the shards: zstd in Parquet, gzip in HDF5, which is slow. Float32 becomes about a
    tenth smaller."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the stored numbers."""
    blocks_per_shard: int = Field(default=2048, ge=1)
    """Blocks of text per shard; part of the cache's identity."""
    exclude: Literal["nothing", "bos", "special"] = "bos"
    """Positions to leave out: ``bos``, whose norm dwarfs the others' in most models, or every
    ``special`` token."""
    exclude_norm_above: float | None = Field(default=None, gt=1)
    """Leave out positions whose norm, at any cached hook, exceeds this multiple of the median of
    their block."""
    published: Published | None = None
    """A cache on a hub, written by this library: a folder with its ``manifest.json`` and shards.
    ``{hook}`` stands for the hook."""
    source: Source = "auto"
    """``auto``: the cache on disk, else ``published``, else made here. ``compute`` and ``fetch``
    insist."""

    @model_validator(mode="after")
    def _has_its_source(self) -> Activations:
        refuse(disputes(self.published, self.source, None))
        return self
