"""saeflow takes a language model to figures through sparse autoencoders."""

import os

__version__ = "0.1.0"

# torch asks once, at its first tensor, whether large ones may lie on large pages. Where the kernel
# gives these when it is asked, a gradient that is made anew at every step costs a hundredth of the
# page faults.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
