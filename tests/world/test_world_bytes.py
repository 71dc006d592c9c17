"""The world to the byte: the same seed gives the same files, whatever the time of day, the memory and the threads are."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from alpamayo_r1.world import clips
from alpamayo_r1.world.clips import encode, write_clips


def digests(folder: Path) -> dict[str, str]:
    """File -> checksum."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_seed_gives_the_same_files(tmp_path, monkeypatch):
    for name in ("a", "b"):
        monkeypatch.setattr(clips.zipfile.time, "localtime", lambda *_, n=name: (2000 + ord(n), 1, 1, 1, 1, 1, 0, 1, 0))
        write_clips([3], tmp_path / name, width=32, height=18, seconds=0.4, t_start=4.8, supersample=1)
    first = digests(tmp_path / "a")
    assert len(first) > 10 and first == digests(tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 18), (64, 36), (66, 38), (256, 144)])
def test_equal_pictures_give_equal_videos_at_every_size(size):
    generator = np.random.default_rng(0)
    few = generator.integers(0, 256, (4, 8, -(-size[1] // 4), -(-size[0] // 4), 3)).astype(np.uint8)
    pictures = few.repeat(4, 2).repeat(4, 3)[:, :, : size[1], : size[0]]
    seen = set()
    for _ in range(60):
        with ThreadPoolExecutor(2) as pool:
            seen.add(tuple(pool.map(encode, pictures)))
        [generator.bytes(9000) for _ in range(50)]
    assert len(seen) == 1


def test_nothing_is_written_through_links(tmp_path):
    """A link to a file is replaced, one to a folder refused; `out` itself may be one."""
    (tmp_path / "mine").mkdir()
    targets = ["features.csv", "labels/egomotion/egomotion.chunk_0000.zip", "clip_index.part"]
    for number, name in enumerate(targets):
        (tmp_path / f"kept{number}").write_text("mine", encoding="utf-8")
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).symlink_to(tmp_path / f"kept{number}")
    (tmp_path / "out").symlink_to(tmp_path / "mine")
    options = {"width": 32, "height": 18, "seconds": 0.4, "t_start": 4.8, "supersample": 1}
    write_clips([3], tmp_path / "out", **options)
    assert {(tmp_path / f"kept{n}").read_text(encoding="utf-8") for n in range(len(targets))} == {"mine"}
    assert not any(path.is_symlink() for path in (tmp_path / "mine").rglob("*"))
    (tmp_path / "other/camera").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "other/camera/camera_front_tele_30fov").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link to"):
        write_clips([3], tmp_path / "other", **options)
    assert not list((tmp_path / "elsewhere").iterdir())
