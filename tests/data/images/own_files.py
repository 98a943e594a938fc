"""A folder of pictures as people have them: five classes, and files of every kind among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {
    "apple": (200, 40, 40),
    "lime": (60, 200, 60),
    "plum": (90, 40, 160),
    "lemon": (220, 210, 60),
    "sky": (90, 170, 240),
}
ORIENTATION = 0x0112


def picture(name: str, seed: int, width: int = 24, height: int = 18) -> Image.Image:
    """Noise around the colour of a class, which a network of any size learns."""
    noise = np.random.default_rng(seed).normal(0, 30, (height, width, 3))
    return Image.fromarray((np.array(COLOURS[name]) + noise).clip(0, 255).astype(np.uint8))


def own_folder(root: Path, count: int = 8, names: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """root/<class>/<number>.jpg and .png, of many sizes."""
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(count):
            image = picture(name, number, 20 + number, 30 - number % 12)
            image.save(root / name / f"{number}.{'png' if number % 2 else 'jpg'}")
    return root


def add_readable(root: Path) -> int:
    """Files that are unusual and fine, and such as tools leave behind; returns how many count."""
    picture("apple", 50).convert("CMYK").save(root / "apple" / "cmyk.jpg")
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(root / "lime" / "sixteen_bits.png")
    picture("plum", 51).convert("P").save(root / "plum" / "palette.png")
    for orientation in range(2, 9):
        image = picture("lemon", 60 + orientation)
        image.getexif()[ORIENTATION] = orientation
        image.save(root / "lemon" / f"exif_{orientation}.JPG", exif=image.getexif())
    picture("sky", 52, 1, 3000).save(root / "sky" / "one_wide.png")
    (root / "sky" / "link.png").symlink_to(root / "sky" / "1.png")
    for place in (".ipynb_checkpoints", "__MACOSX", "apple/.ipynb_checkpoints"):
        (root / place).mkdir()
        picture("apple", 0).save(root / place / "0-checkpoint.png")
    for place in ("apple/._0.jpg", "apple/Thumbs.db", ".DS_Store", "sky/desktop.ini"):
        (root / place).write_bytes(b"left behind")
    (root / "sky" / "x.png").mkdir()
    return 12


def add_unusable(root: Path) -> list[tuple[str, str]]:
    """Files that no one can decode; returns each with a part of the reason, as they are found."""
    file = root / "lime" / "cut_off.jpg"
    picture("lime", 53, 200, 200).save(file)
    file.write_bytes(file.read_bytes()[:3000])
    (root / "lime" / "text.jpg").write_text("not a picture")
    (root / "plum" / "gone.png").symlink_to(root / "nowhere.png")
    return [
        ("lime/cut_off.jpg", "truncated"),
        ("lime/text.jpg", "no image"),
        ("plum/gone.png", "No such file"),
    ]
