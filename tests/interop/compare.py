"""Holds saeflow's SAE files to the libraries that they come from and go to; exit status 1 if one
differs.

    compare.py FOLDER_OF_THE_VIRTUAL_ENVIRONMENT [--golden FOLDER]

``peers.py`` runs in that environment, made from ``requirements.txt``; this runs in the project's
own. With ``--golden`` it writes nothing but the small files that the ordinary tests read without these
libraries.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from saeflow.saes.io import export_sae, import_sae
from saeflow.saes.sae import SAE

HERE = Path(__file__).parent
TOLERANCE = 1e-5
WIDTH, LATENTS, ROWS = 64, 256, 200


def peers(python: Path, *arguments: str) -> None:
    """Run ``peers.py`` in its environment."""
    done = subprocess.run([python, HERE / "peers.py", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"peers.py {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")


def differences(sae: SAE, expected: dict[str, Tensor]) -> tuple[float, float]:
    """The largest difference of what the latents write, and of the reconstruction.

    Latents are compared by the length of what each writes, since libraries keep decoder rows of
    other norms.
    """
    x = expected["x"]
    ours = sae.encode(x) * sae.W_dec.norm(dim=1)
    theirs = expected["latents"] * expected["lengths"]
    return float((ours - theirs).abs().max()), float(
        (sae.reconstruct(x) - expected["reconstruction"]).abs().max()
    )


def random_saes() -> dict[str, SAE]:
    """One SAE or transcoder of every architecture; decoder rows of unit norm."""
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw) * 0.5

    def random_sae(
        architecture: str,
        d_out: int = WIDTH,
        skip: bool = False,
        metadata: dict[str, str] | None = None,
    ) -> SAE:
        rows = normal(LATENTS, d_out)
        own = {
            "jumprelu": {"threshold": torch.rand(LATENTS, generator=draw)},
            "topk": {"k": 12},
            "gated": {name: normal(LATENTS) for name in ("r_mag", "b_gate", "b_mag")},
        }
        return SAE(
            architecture,
            W_enc=normal(WIDTH, LATENTS) * WIDTH**-0.5,
            W_dec=rows / rows.norm(dim=1, keepdim=True),
            b_enc=normal(LATENTS),
            b_dec=normal(d_out),
            W_skip=normal(d_out, WIDTH) * WIDTH**-0.5 if skip else None,
            metadata={"hook_name": "blocks.3.hook_resid_post"} | (metadata or {}),
            **own.get(architecture, {}),
        )

    return {
        **{name: random_sae(name) for name in ("standard", "topk", "jumprelu", "gated")},
        "standard-hook_z": random_sae("standard", metadata={"hook_name": "blocks.3.attn.hook_z"}),
        "standard-transcoder": random_sae("standard", WIDTH + 1),
        "standard-skip": random_sae("standard", WIDTH + 1, skip=True),
        "jumprelu-transcoder": random_sae(
            "jumprelu", metadata={"hook_name_out": "blocks.3.hook_mlp_out"}
        ),
        "jumprelu-skip": random_sae("jumprelu", WIDTH + 1, skip=True),
        "topk-transcoder": random_sae(
            "topk", skip=True, metadata={"hook_name_out": "blocks.3.hook_mlp_out"}
        ),
    }


EXPORTS = {
    "saelens": [name for name in random_saes() if name != "topk-transcoder"],
    "dictionary_learning": ["standard", "topk", "jumprelu", "gated"],
    "sparsify": ["topk", "topk-transcoder"],
    "gemma_scope": ["standard", "jumprelu"],
}


def imports(python: Path, folder: Path) -> list[tuple[str, float, float]]:
    """Every kind of SAE that a library writes, as we read it and as it computes itself."""
    peers(
        python,
        "write",
        str(folder),
        "--width",
        str(WIDTH),
        "--latents",
        str(LATENTS),
        "--rows",
        str(ROWS),
    )
    return [
        (
            f"import {case.name}",
            *differences(import_sae(case), load_file(case / "expected.safetensors")),
        )
        for case in sorted(folder.iterdir())
    ]


def exports(python: Path, folder: Path) -> list[tuple[str, float, float]]:
    """Every kind of SAE that we write, as the library reads it and as we compute ourselves."""
    saes = random_saes()
    x = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(2))
    cases = {f"{name}-{sae}": saes[sae] for name, those in EXPORTS.items() for sae in those}
    for name, sae in cases.items():
        export_sae(folder / name, sae, name.split("-")[0])
        save_file({"x": x}, folder / name / "x.safetensors")
    peers(python, "read", str(folder), "--width", str(WIDTH), "--latents", str(LATENTS))
    return [
        (f"export {name}", *differences(sae, load_file(folder / name / "expected.safetensors")))
        for name, sae in cases.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path)
    parser.add_argument("--golden", type=Path)
    options = parser.parse_args()
    python = (options.environment / "bin" / "python").absolute()
    if options.golden:
        shutil.rmtree(options.golden, ignore_errors=True)
        peers(
            python, "write", str(options.golden), "--width", "6", "--latents", "12", "--rows", "8"
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        results = imports(python, Path(folder, "theirs")) + exports(python, Path(folder, "ours"))
    print(f"{'largest difference':<52}{'latents':>10}{'output':>10}")
    for name, latents, output in results:
        print(
            f"{name:<52}{latents:>10.1e}{output:>10.1e}{'' if max(latents, output) <= TOLERANCE else '  DIFFERS'}"
        )
    wrong = sum(max(latents, output) > TOLERANCE for _, latents, output in results)
    print(f"{len(results) - wrong} of {len(results)} within {TOLERANCE}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
