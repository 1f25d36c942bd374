"""Drawn people: OpenPose's points, limbs and colors."""

from __future__ import annotations

from worker.preprocessors.openpose import draw_person, to_openpose

#: COCO's joints of a standing person, seen from the front: its left side is to the right.
STANDING: list[tuple[float, float] | None] = [
    (256, 60), (270, 50), (242, 50), (285, 60), (227, 60), (310, 130), (202, 130), (340, 220), (172, 220),
    (350, 300), (162, 300), (290, 300), (222, 300), (300, 400), (212, 400), (305, 490), (207, 490),
]  # fmt: skip


def test_the_neck_lies_between_the_shoulders_and_left_and_right_stay_apart() -> None:
    points = to_openpose(STANDING)
    assert len(points) == 18
    assert (points[0], points[1]) == ((256, 60), (256, 130))
    right_wrist, left_ankle = points[4], points[13]
    assert (right_wrist, left_ankle) == ((162, 300), (305, 490))


def test_points_and_limbs_have_openposes_colors_and_the_rest_is_black() -> None:
    made = draw_person(STANDING, (512, 512))
    assert made.shape == (512, 512, 3)
    places = {"nose": (256, 60), "right wrist": (162, 300), "left ankle": (305, 490)}
    colors = {name: made[y, x].tolist() for name, (x, y) in places.items()}
    assert colors == {"nose": [255, 0, 0], "right wrist": [170, 255, 0], "left ankle": [85, 0, 255]}
    assert made[130, 229].tolist() == [153, 0, 0], "the limb from the neck to the right shoulder"
    assert made[350, 295].tolist() == [0, 102, 153], "the limb from the left hip to the left knee"
    assert not made[:40].any()
    assert not made[200, 256 - 60 : 256 - 50].any()


def test_without_a_shoulder_there_is_no_neck_and_without_joints_nothing() -> None:
    joints = list(STANDING)
    joints[5] = None
    assert to_openpose(joints)[1] is None
    made = draw_person(joints, (512, 512))
    assert not made[130, 229].any(), "no limb to a point that is not known"
    assert not draw_person([None] * 17, (64, 64)).any()
