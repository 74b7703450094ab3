"""Lets the model answer `instructions.txt` and writes `chat.jsonl`: how that file was made.

python workflow/corpora/smollm2/answers.py results/smollm2/models/smollm2-135m-instruct
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
SAMPLING = {"do_sample": True, "temperature": 0.8, "top_k": 50, "max_new_tokens": 64}
BATCH = 72


def main(folder: str) -> None:
    """Write every instruction with its answers, as the chat template has them."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    torch.manual_seed(0)
    instructions = (HERE / "instructions.txt").read_text().splitlines()
    asked = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in instructions
    ]
    by_length = sorted(range(len(asked)), key=lambda place: len(asked[place]))
    answers: dict[int, str] = {}
    for first in range(0, len(asked), BATCH):
        places = by_length[first : first + BATCH]
        batch = tokenizer(
            [asked[place] for place in places],
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
        )
        length = batch["input_ids"].shape[1]
        with torch.no_grad():
            drawn = model.generate(**batch, **SAMPLING)[:, length:]
        for place, tokens in zip(places, drawn, strict=True):
            ended = tokenizer.eos_token_id in tokens
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            answers[place] = text + (tokenizer.eos_token if ended else "")
        print(f"{len(answers)} of {len(asked)}", file=sys.stderr, flush=True)
    lines = [json.dumps({"text": asked[place] + answers[place]}) for place in sorted(answers)]
    (HERE / "chat.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
