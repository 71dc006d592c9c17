"""Writes the bundled recording, src/alpamayo_r1/assets/recording: our world driven with another car's rig.

python docs/make_recording.py
"""

from __future__ import annotations

from pathlib import Path

from alpamayo_r1.world.recordings import Car, write_recording
from alpamayo_r1.world.simulate import simulate

OUT = Path(__file__).parents[1] / "src/alpamayo_r1/assets/recording"
SEED, FAMILY = 970_010, "curve"

if __name__ == "__main__":
    scene = simulate([SEED], seconds=12, families=[FAMILY])
    write_recording(scene, OUT, car=Car(), width=640, height=360, start=3.2, seconds=3.0, crf=25, name="another-car")
    print(sum(file.stat().st_size for file in OUT.iterdir()), "bytes in", OUT)
