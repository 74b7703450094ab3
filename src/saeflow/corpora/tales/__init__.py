"""The story grammar ``tales``: an endless corpus with known truth about topic, syntax and
probability."""

from saeflow.corpora.tales.lexicon import TOPICS
from saeflow.corpora.tales.measures import behaviour, coherence, topic_words
from saeflow.corpora.tales.probabilities import next_token_probs, token_log_probs
from saeflow.corpora.tales.stories import story_blocks
from saeflow.corpora.tales.tokenization import split_tokens, tokenizer

__all__ = [
    "TOPICS",
    "behaviour",
    "coherence",
    "next_token_probs",
    "split_tokens",
    "story_blocks",
    "token_log_probs",
    "tokenizer",
    "topic_words",
]
