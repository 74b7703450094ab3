"""Says to uv what pip is told: reads `pip config list`, prints lines for a shell to evaluate.

uv takes none of pip's settings. Where pip is given an index of its own, folders of wheels,
certificates or limits of versions, both are to install the same files. What is set for uv stays.
"""

import ast
import os
import shlex
import sys
from collections.abc import Iterable

# pip's setting: uv's variable, and what stands between two of its values
VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
}


def exports(lines: Iterable[str]) -> list[str]:
    """One line `export NAME=VALUE` for each of pip's settings that uv knows.

    `lines` are as pip lists them, `global.index-url='https://…'`: those of the environment come
    first, and win.
    """
    values: dict[str, str] = {}
    for line in lines:
        key, _, value = line.strip().partition("=")
        name, between = VARIABLES.get(key.rpartition(".")[2], ("", ""))
        if name and name not in os.environ:
            values.setdefault(name, between.join(ast.literal_eval(value).split()))
    return [f"export {name}={shlex.quote(value)}" for name, value in values.items()]


if __name__ == "__main__":
    print(*exports(sys.stdin), sep="\n")
