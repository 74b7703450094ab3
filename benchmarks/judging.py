"""Calls per second of the judge 'openai' against a server on loopback that takes a fixed time to
answer.

The ideal is concurrency divided by latency: a client that costs nothing.

    python benchmarks/judging.py [--calls 20000] [--concurrency 64] [--latency 0.05] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from judge_server import KEY, serving

from saeflow.config import Calls
from saeflow.config.sections import Judge
from saeflow.decoding.completion import Completion
from saeflow.endpoint.asking import ask
from saeflow.endpoint.inquiries import Inquiry
from saeflow.endpoint.ledger import Ledger
from saeflow.endpoint.service import Service
from saeflow.judging.templates import RATING


def measure(calls: int, concurrency: int, latency: float) -> dict[str, float]:
    """Wall and CPU time of one run with an empty ledger, after a first run that opened the
    connections' way."""
    questions = [
        Inquiry(RATING, "It is calm.", (Completion("I", f"I {i}" * 12),))
        for i in range(calls + concurrency)
    ]
    with tempfile.TemporaryDirectory() as folder, serving(latency=str(latency)) as url:
        judge = Judge(kind="openai", model="loopback")
        service = Service(
            judge,
            Calls(base_url=url, concurrency=concurrency),
            Ledger(Path(folder, "ledger.sqlite")),
        )
        ask(questions[calls:], service)
        wall, cpu = time.perf_counter(), time.process_time()
        ask(questions[:calls], service)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        again = time.perf_counter()
        ask(questions, service)
        again = time.perf_counter() - again
    return {
        "calls_per_second": round(calls / wall, 1),
        "share_of_ideal": round(calls / wall * latency / concurrency, 3),
        "cpu_ms_per_call": round(1000 * cpu / calls, 3),
        "second_run_seconds": round(again, 3),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that the server takes")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = KEY
    for _ in range(options.repeats):
        measured = measure(options.calls, options.concurrency, options.latency)
        load = round(os.getloadavg()[0], 1)
        print(
            json.dumps(
                {
                    "concurrency": options.concurrency,
                    "latency": options.latency,
                    "load": load,
                    **measured,
                }
            )
        )


if __name__ == "__main__":
    main()
