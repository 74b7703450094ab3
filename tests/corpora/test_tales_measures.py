"""The measures of the grammar ``tales`` agree with labels given by hand."""

from __future__ import annotations

import pytest
import yaml
from checkout import ROOT

from saeflow.config.goal import Goal
from saeflow.corpora import tales
from saeflow.corpora.tales.automaton import automaton
from saeflow.corpora.tales.measures import split_sentences
from saeflow.corpora.tales.tokenization import split_tokens

GOALS = ROOT / "workflow" / "goals" / "tales"

# text; its coherence, as credited tokens over all tokens; the topics' shares of its content words
LABELLED = [
    # sentences of the grammar
    ("She walked to the river.", 1.0, {}),
    ("Tom was quiet. He painted the old mirror and smiled slowly.", 1.0, {}),
    ("I think that the house is near the river", 1.0, {}),
    ("I think that the letter is old.", 1.0, {}),
    ("Last night, Anna hurried to the station because the doctor called her.", 1.0, {}),
    ("“Where is my key?” asked the teacher.", 1.0, {}),
    ("Peter answered, “I can help you.”", 1.0, {}),
    ("“Oh, I lost an umbrella!” cried Clara.", 1.0, {}),
    ("What an old clock!", 1.0, {}),
    ("There were two letters in the garden.", 1.0, {}),
    ("The box that she found was opened by her brother.", 1.0, {}),
    ("When Omar visited his aunt, the rain stopped.", 1.0, {}),
    ("Why did she hide the basket?", 1.0, {}),
    # errors of agreement: half credit up to the error
    ("She walk to the river.", 0.5 * 1 / 6, {}),
    ("We was tired.", 0.5 * 1 / 4, {}),
    ("They was tired.", 0.0, {}),
    ("The children was tired.", 0.5 * 2 / 5, {}),
    ("The letter were old.", 0.5 * 2 / 5, {}),
    ("I is hungry.", 0.5 * 1 / 4, {}),
    ("Yesterday, she finds the key.", 0.5 * 3 / 7, {}),
    ("He bought an letter.", 0.5 * 3 / 5, {}),
    ("She gave these book to everyone.", 0.5 * 3 / 7, {}),
    ("Anna said that the rain stopped.", 0.5 * 2 / 7, {}),
    ("While Anna laughed, he smiled.", 0.5 * 4 / 7, {}),
    ("La petit maison est rouge.", 0.5 * 1 / 6, {"french": 1.0}),
    # word salad and words from nowhere
    ("river the walked she to", 0.0, {}),
    ("The the the the.", 0.5 * 1 / 5, {}),
    ("Xylophone quantum.", 0.0, {}),
    ("She walked to the xylophone.", 0.5 * 4 / 6, {}),
    ("", 0.0, {}),
    ("...", 0.0, {}),
    # one sound and one broken sentence, weighted by their tokens
    ("She waited. She walk to the river.", (3 + 0.5 * 1) / 9, {}),
    ("She walk to the river. She waited.", (0.5 * 1 + 3) / 9, {}),
    # cut off: full when it begins a sentence, but only at the end of the text
    ("Tom was quiet. He painted the old", 1.0, {}),
    ("“Where is my", 1.0, {}),
    ("I think", 1.0, {}),
    ("Peter answered, “I can help you.", 1.0, {}),
    ("Tom was. He painted the mirror.", (0.5 * 2 + 5) / 8, {}),
    # on a topic
    ("Tom was furious. He smashed the mirror and shouted angrily.", 1.0, {"anger": 4 / 5}),
    ("Anna prayed in the church. She felt hope.", 1.0, {"christian_evangelist": 1 / 2}),
    ("The aliens concealed the microchip.", 1.0, {"conspiracy": 1.0}),
    ("She found la petite lettre.", 1.0, {"french": 3 / 4}),
    ("Le chien regarde le ciel.", 0.5 * 1 / 6, {"french": 1.0}),  # chien and ciel are unknown
    ("He walked to the Thames.", 1.0, {"london": 1 / 2}),
    (
        "We kissed a Londoner near the wedding.",
        1.0,
        {"love": 1 / 3, "london": 1 / 3, "wedding": 1 / 3},
    ),
    ("“I want to die,” she sobbed.", 1.0, {"want_to_die": 2 / 3}),
    ("“You are brilliant,” exclaimed Maria.", 1.0, {"praise": 1.0}),
    ("bride groom the of wedding", 0.0, {"wedding": 1.0}),
]


@pytest.mark.parametrize(("text", "expected", "shares"), LABELLED)
def test_coherence_and_behaviour_agree_with_labels_by_hand(
    text: str, expected: float, shares: dict[str, float]
) -> None:
    assert tales.coherence(text) == pytest.approx(expected)
    assert tales.behaviour(text) == pytest.approx(
        {topic: shares.get(topic, 0.0) for topic in tales.TOPICS[1:]}
    )


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("She walks to the park.", "She walk to the park."),
        ("We are happy.", "We is happy."),
        ("I am happy.", "I are happy."),
        ("The nurse has found the key.", "The nurse have found the key."),
        ("Does he wait?", "Do he wait?"),
        ("The keys are new.", "The keys is new."),
        ("There are two boxes in Oslo.", "There is two boxes in Oslo."),
        ("She had hidden the box.", "She had hid the box."),
        ("He can find the box.", "He can finds the box."),
        ("Every morning, Tom visits his brother.", "Every morning, Tom visits her brother."),
        ("Les voisins sont tristes.", "Les voisins est tristes."),
        ("Elle est heureuse.", "Elle est heureux."),
        ("Il regarde les fleurs.", "Il regarde le fleurs."),
        ("“Je suis perdu,” she said.", "“Je est perdu,” she said."),
    ],
)
def test_a_violation_of_agreement_is_not_coherent(right: str, wrong: str) -> None:
    assert tales.coherence(right) == 1.0
    assert tales.coherence(wrong) < 0.5


def test_a_sentence_ends_at_its_mark_or_after_the_quote() -> None:
    text = "“Who waits?” asked Tom. He said, “I wait.” What a book! “Yes!” cried Tom. He"
    assert [" ".join(sentence) for sentence in split_sentences(split_tokens(text))] == [
        "“ Who waits ? ” asked Tom .",
        "He said , “ I wait . ”",
        "What a book !",
        "“ Yes ! ” cried Tom .",
        "He",
    ]


def test_words_of_topics_are_disjoint_and_each_topic_has_enough() -> None:
    source = automaton()
    topics: dict[str, set[int]] = {}
    for text, topic in zip(source.words, source.word_topic, strict=True):
        topics.setdefault(text.lower(), set()).add(int(topic))
    assert all(len(topics_of) == 1 for topics_of in topics.values())
    for topic in range(1, len(tales.TOPICS)):
        assert sum(topic in topics_of for topics_of in topics.values()) >= 40


@pytest.mark.parametrize("topic", tales.TOPICS[1:])
def test_goal_files_are_told_apart_by_the_grammar(topic: str) -> None:
    goal = Goal(**yaml.safe_load((GOALS / f"{topic}.yaml").read_text("utf-8")))
    words = set(automaton().words)
    assert goal.topic == topic
    for text in goal.positive + goal.negative:
        assert words.issuperset(split_tokens(text))
        assert tales.coherence(text) == 1.0
    assert min(tales.behaviour(text)[topic] for text in goal.positive) >= 0.25
    assert not any(any(tales.behaviour(text).values()) for text in goal.negative)
