"""What the check says of one item: a verdict, the likely faults by name, what was seen and what to change."""

from __future__ import annotations

from dataclasses import dataclass

OK, ATTENTION, WRONG, UNKNOWN = "ok", "attention", "wrong", "cannot tell"

FAULTS = {
    "recording-broken": "recording.yaml or a file that it names can't be used: the message says which",
    "pose-gaps": "the poses have gaps: no plan is made across more than 0.5 s",
    "pose-noise": "the model reads histories to centimetres: say poses.smooth: true, and give the wheels' speed (poses.speed)",
    "pose-rate": "poses are rarer than 5 per second: log more of them",
    "quaternion-order": "swap poses.orientation.order (xyzw, wxyz), or the order of its columns",
    "rotation-inverse": "say poses.orientation.rotates: world_to_body (or take it away)",
    "positions-left-handed": "one axis of the positions points the other way: change its sign (or the frame: NED, ENU)",
    "positions-swapped": "swap the first two columns of poses.position",
    "yaw-reversed": "the car's x axis points backward: turn yaw by 180 degrees (poses.orientation.body)",
    "body-axes": "the orientation is of other axes than forward, left, up: set poses.orientation.body, or turn it by 90 degrees",
    "heading-as-yaw": "say poses.orientation.kind: heading, for angles clockwise from north",
    "yaw-is-heading": "say poses.orientation.kind: yaw, for angles counter-clockwise from east",
    "yaw-degrees": "say poses.orientation.unit: deg",
    "yaw-radians": "say poses.orientation.unit: rad",
    "poses-mirrored": "positions and orientations are both mirrored: say poses.position.frame: NED, or turn the y axis of both",
    "poses-inconsistent": "path and orientation disagree and no usual mix-up explains it: check that both are of one body and one clock",
    "pose-speed": "the poses move at another speed than the pictures: check poses.time.unit, their rate, and metres against feet",
    "wheel-speed": "the wheels' unit, or the poses' rate: check poses.speed.unit and poses.time.unit",
    "time-shift": "set clock_offset of the cameras (or of the poses) so that both stand on one clock",
    "extrinsics-inverted": "say mounting.extrinsics: vehicle_to_camera (or take it away)",
    "camera-axes": "set mounting.axes: FLU for camera axes x forward, optical for z forward",
    "camera-roll": "the camera lies on its side or its head: check the rotation, or turn the pictures",
    "camera-height": "check the camera's position: z is its height over the ground in metres",
    "camera-focal": "check focal and size: intrinsics of a picture that was scaled or cropped scale with it",
    "camera-lens": "check model and distortion: a fisheye that is taken for a pinhole turns what it sees aside",
    "camera-pitch": "the camera looks further up or down than its mounting says",
    "camera-yaw": "the camera looks further left or right than its mounting says",
    "cameras-swapped": "swap the pictures (frames) of these two cameras",
    "pictures-mirrored": "the pictures are mirrored left to right: write them as the lens saw them",
    "pictures-upside-down": "the pictures stand on their heads: turn them, or the mounting by 180 degrees",
    "pictures-frozen": "the same picture comes again and again: the recording of this camera stopped",
    "pictures-flat": "pictures of one colour: covered, off, or not decoded",
    "pictures-gaps": "frames are missing: a plan refuses frames older than 0.25 s",
    "camera-unclear": "the road does not move as the poses say, and no usual mix-up explains it: check lens, mounting and times together",
    "views-missing": "no camera looks there; Alpamayo 1.5 can do without, R1 was not trained on fewer",
}
"""Every fault that the check can name, and what to do about it."""


@dataclass(frozen=True)
class Finding:
    """One item of the check. faults: names of FAULTS, the likeliest first; several where what was seen can't tell them apart."""

    item: str
    verdict: str
    seen: str
    faults: tuple[str, ...] = ()

    @property
    def do(self) -> str:
        """What to change, in words."""
        return "; or ".join(FAULTS[fault] for fault in self.faults)
