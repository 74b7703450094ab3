"""A study's results without what its report says of the time that jobs took, which no two runs
share."""

import hashlib
import json
import re
from pathlib import Path

TOLD = re.compile(
    rb'<section id="cost".*?</section>'
    rb"|<dt>(?:Run|Time of jobs|Processor time)</dt>\s*<dd>.*?</dd>",
    re.DOTALL,
)


def digest(file: Path) -> str:
    """SHA-256 of a file; of a report's first page and its checksums without times."""
    content = file.read_bytes()
    if file.parts[-2:] == ("report", "index.html"):
        content = TOLD.sub(b"", content)
    if file.parts[-2:] == ("report", "checksums.json"):
        sums = json.loads(content)
        # The seal is over the sum of the first page, too.
        sums = {name: sums[name] for name in sums if name not in ("index.html", "saeflow_seal")}
        content = json.dumps(sums).encode()
    return hashlib.sha256(content).hexdigest()
