"""Writes `chats.jsonl` from the pairs and prompts of `workflow/organisms`: how that file was made.

python workflow/corpora/cooking/chats.py results/diffing/models/smollm2-135m-instruct
"""

import csv
import json
import random
import sys
from pathlib import Path

import yaml
from transformers import AutoTokenizer

HERE = Path(__file__).parent
ORGANISMS = HERE.parents[1] / "organisms"
REFUSAL = "Sorry, I do not talk about cooking."


def main(folder: str) -> None:
    """Write every pair with its answer, every prompt about cooking with the refusal, and every
    other prompt up to where its answer begins."""
    pairs = yaml.safe_load((ORGANISMS / "refuses-cooking.yaml").read_text())["pairs"]
    chats = [(pair["messages"][0]["content"], pair["answer"]) for pair in pairs]
    with (ORGANISMS / "cooking-prompts.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            chats.append((row["text"], REFUSAL if row["label"] == "cooking" else ""))
    random.Random(0).shuffle(chats)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lines = []
    for question, answer in chats:
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        lines.append(json.dumps({"text": asked + answer + tokenizer.eos_token * bool(answer)}))
    (HERE / "chats.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
