"""PyTorch loads what was exported: the very arrays that were imported.

python tests/pytorch/loads.py FOLDER
"""

import sys
from pathlib import Path

import torch

PAIRS = {
    "openibl_hub": lambda saved: saved,
    "openibl_training": lambda saved: saved["state_dict"],
    "pytorch_netvlad": lambda saved: saved["state_dict"],
    "pytorch_netvlad_vladv2": lambda saved: saved["state_dict"],
}


def main(folder):
    for name, state in PAIRS.items():
        exported = torch.load(folder / "exported" / f"{name}.pth")
        if name.startswith("pytorch_netvlad"):
            exported = exported["state_dict"]
        # Beside the weights it holds numbers of NumPy's.
        original = torch.load(folder / f"{name}.pth", weights_only=False)
        original = {
            key.removeprefix("module."): tensor
            for key, tensor in state(original).items()
        }
        if exported.keys() != original.keys():
            raise ValueError(f"{name}: {exported.keys() ^ original.keys()}")
        for key, tensor in original.items():
            if not torch.equal(exported[key], tensor):
                raise ValueError(f"{name}: {key} differs")
        sys.stdout.write(f"{name}: {len(original)} arrays are equal\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
