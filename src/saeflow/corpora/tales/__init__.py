"""The story grammar ``tales``: an endless corpus with known truth about topic, syntax and
probability."""

from saeflow.corpora.tales.lexicon import TOPICS
from saeflow.corpora.tales.measures import behaviour, coherence
from saeflow.corpora.tales.probabilities import next_token_probs, token_log_probs
from saeflow.corpora.tales.stories import story_blocks
from saeflow.corpora.tales.tokenization import tokenizer

__all__ = [
    "TOPICS",
    "behaviour",
    "coherence",
    "next_token_probs",
    "story_blocks",
    "token_log_probs",
    "tokenizer",
]
