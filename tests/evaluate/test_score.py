"""What a row says of a plan's words."""

from alpamayo_r1.evaluate.score import decision

STOP, GO = "Stop for the red light ahead", "Accelerate to the speed limit"


def test_the_decision_is_what_most_samples_say():
    (stop,), (go,) = {decision([STOP])}, {decision([GO])}
    assert stop != go
    assert decision([STOP, GO, STOP]) == decision([GO, STOP, STOP]) == stop
    assert decision([GO, GO, STOP, "", GO]) == go
    assert decision(["", "nothing that is known", GO]) == "none"
    assert decision([STOP, GO]) == decision([GO, STOP]), "a tie does not depend on the order of samples"
