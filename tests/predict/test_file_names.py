"""Names of results: short where they can be, exact always."""

import pytest

from alpamayo_r1.data.clips import T0_US
from alpamayo_r1.predict.run import file_name

EPOCH = 1_700_000_000_000_000


@pytest.mark.parametrize(
    "t0_us, name", [(T0_US, "a"), (6_500_000, "a_6.5s"), (6_000_000, "a_6s"), (-250_000, "a_-0.25s"), (10, "a_0.00001s")]
)
def test_a_time_is_written_in_seconds(t0_us, name):
    assert file_name("a", t0_us) == name


def test_no_two_moments_share_a_file():
    moments = [EPOCH + step for step in (-1_000_000, -100_000, 0, 1, 10, 100_000, 1_000_000)] + list(range(5_000_000, 5_000_020))
    assert len({file_name("a", t0_us) for t0_us in moments}) == len(moments)
