"""Public observations of other arrays: each command ends as the study of them says is right.

The cheapest command of each; `python -m studies.other_arrays` runs all.
"""

import pytest

from studies.other_arrays import OBSERVATIONS, outcome, right, unpacked, words


@pytest.mark.shared_data
@pytest.mark.parametrize("of", OBSERVATIONS, ids=lambda of: of.name)
def test_the_image_of_each_is_made_or_refused_in_words(of, shared_data, tmp_path):
    ms = unpacked(of.name, tmp_path)
    run = of.runs[0]
    status, said = outcome(words(run, of, ms, tmp_path, tmp_path / "catalogs"))
    assert right(run, status, said), said
    assert (tmp_path / "im-image.fits").exists() == (status == 0)


@pytest.mark.shared_data
def test_without_a_dish_only_a_catalogue_and_the_beam_need_one(vlba, tmp_path):
    for words_of in (
        ["selfcal", str(vlba), str(tmp_path / "out"), "--catalog-dir", str(tmp_path)],
        ["image", str(vlba), "--name", str(tmp_path / "pb"), "--pb-correct"],
    ):
        status, said = outcome(words_of)
        assert status == 2
        assert "no primary beam: telescope 'VLBA' is unknown" in said
