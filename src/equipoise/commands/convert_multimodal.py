"""Turn a published pickle of language, audio and vision into a safetensors file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tqdm import tqdm

from equipoise.commands.arguments import Parser
from equipoise.errors import UserError

if TYPE_CHECKING:
    from equipoise.data.multimodal.published import PublishedSet


def main(words: Sequence[str]) -> int:
    """Read, check, write and tell what was read; returns 0. Raises UserError."""
    from equipoise.data.multimodal.published import read_published
    from equipoise.data.multimodal.stored import ENDING, size_of, write_stored

    arguments = _parser().parsed(words)
    source = Path(arguments.source)
    if not source.is_file():
        what = "is a folder" if source.is_dir() else "does not exist"
        raise UserError(
            f"{source} {what}: give the published pickle, such as mosi_data_noalign.pkl"
        )
    target = Path(arguments.target) if arguments.target else source.with_suffix(ENDING)
    if target.suffix != ENDING:
        raise UserError(f"{target} must end in {ENDING}, so that a run knows how to read it")
    if target.exists():
        raise UserError(f"{target} already exists; choose a new file")
    print(f"reading {source} ({source.stat().st_size / 2**20:,.0f} MB)", flush=True)
    content = read_published(source, arguments.non_finite)
    for line in described(content):
        print(line)
    with tqdm(total=size_of(content), unit="B", unit_scale=True, desc="writing") as progress:
        write_stored(content, target, progress.update)
    print(f"{target}: {target.stat().st_size / 2**20:,.0f} MB")
    kind = "iemocap" if content.emotions else "mosi, or mosei,"
    print(f"train on it with task={kind} and task.path={target}")
    return 0


def described(content: PublishedSet) -> list[str]:
    """The content of a set, a line for each fact."""
    counts = [f"{name} {len(samples):,}" for name, samples in content.splits.items()]
    labels = f"{content.emotions} emotions" if content.emotions else "a score of sentiment"
    sizes = [f"{name} {steps} x {width}" for name, (steps, width) in content.shapes.items()]
    lines = [
        f"samples: {', '.join(counts)}, each with {labels}",
        f"streams: {', '.join(sizes)} (steps x features)",
    ]
    for split, numbers in content.replaced.items():
        replaced = [f"{count:,} of {name}" for name, count in numbers.items() if count]
        lines += [f"values that 0 replaces in {split}: {', '.join(replaced)}"] if replaced else []
    return lines


def _parser() -> Parser:
    from equipoise.data.multimodal.published import NonFinite

    parser = Parser(prog="python -m equipoise convert-multimodal", description=__doc__)
    parser.add_argument("source", help="the published pickle, say mosi_data_noalign.pkl")
    parser.add_argument(
        "target", nargs="?",
        help="the file to write; without it, beside the pickle, ending in .safetensors",
    )  # fmt: skip
    parser.add_argument(
        "--non-finite", choices=get_args(NonFinite), default="published",
        help="published: -inf in audio becomes 0 and other such values are refused; "
        "zero: all values that are not finite become 0",
    )  # fmt: skip
    return parser
