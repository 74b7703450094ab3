"""The story grammar ``tales``: an endless corpus with known truth about topic, syntax and probability."""

from saeflow.corpora.tales.lexicon import TOPICS
from saeflow.corpora.tales.stories import story_blocks
from saeflow.corpora.tales.tokenization import tokenizer

__all__ = ["TOPICS", "story_blocks", "tokenizer"]
