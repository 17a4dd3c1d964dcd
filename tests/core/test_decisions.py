"""False-discovery rates and what a person said of a pick travel with it."""

from pathlib import Path

import numpy as np
import pytest

from tomotwin_core.coordinates import ACCEPTED, REJECTED, UNDECIDED, Coordinates, read_coordinates, write_coordinates
from tomotwin_core.errors import UserError


def decided() -> Coordinates:
    return Coordinates.from_arrays(
        [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        10.0,
        "TS_01",
        (20, 20, 20),
        "ribosome",
        [0.9, 0.8, 0.3],
        fdr=[0.01, 0.05, 0.5],
        accepted=[ACCEPTED, UNDECIDED, REJECTED],
    )


@pytest.mark.parametrize("format", ["star", "relion4", "relion5"])
def test_rates_and_decisions_come_back_from_star_files(tmp_path: Path, format: str) -> None:
    write_coordinates(tmp_path / "a.star", decided(), format)
    back = read_coordinates(tmp_path / "a.star")
    assert back.fdr is not None and back.accepted is not None
    np.testing.assert_allclose(back.fdr, [0.01, 0.05, 0.5], rtol=1e-3)
    assert back.accepted.tolist() == [1, -1, 0]
    assert "tomotwinFDR" in (tmp_path / "a.star").read_text()


def test_rates_and_decisions_follow_their_rows() -> None:
    chosen = decided().select([2, 0]).to_voxel_size(5.0)
    assert chosen.accepted is not None and chosen.accepted.tolist() == [0, 1]
    assert chosen.fdr is not None and chosen.fdr.tolist() == pytest.approx([0.5, 0.01])
    both = Coordinates.concatenate([chosen, decided()])
    assert both.accepted is not None and both.accepted.tolist() == [0, 1, 1, -1, 0]
    without = Coordinates.from_arrays([[1, 2, 3]], 10.0, "TS_01")
    assert Coordinates.concatenate([decided(), without]).accepted is None


def test_a_decision_that_is_none_is_told(tmp_path: Path) -> None:
    write_coordinates(tmp_path / "a.star", decided())
    text = (tmp_path / "a.star").read_text()
    (tmp_path / "a.star").write_text(text.replace(" -1\n", " 7\n"))
    with pytest.raises(UserError, match="tomotwinAccepted"):
        read_coordinates(tmp_path / "a.star")
