"""Every story of the data path's faults, under schedules that seeds draw, and with each of its steps held back in turn."""

import pytest

from tests.schedules.soup import soup
from tests.schedules.stories import STORIES
from tests.schedules.world import Story, each_held, find

ALL = [pytest.param(story, id=story.__name__) for stories in STORIES.values() for story in stories]


@pytest.mark.parametrize("story", ALL)
def test_any_order(story: Story, full: bool) -> None:
    found, _ = find(story, 1000 if full else 20)
    assert found is None, f"seed {found.seed}: {found.error!r}\n{found.told}"


def test_soup(full: bool) -> None:
    found, _ = find(soup, 2000 if full else 20)
    assert found is None, f"seed {found.seed}: {found.error!r}\n{found.told}"


@pytest.mark.slow
@pytest.mark.parametrize("story", ALL)
def test_each_step_held_back(story: Story, full: bool) -> None:
    for telling in each_held(story, 0, 1 if full else 8):
        assert telling.error is None, f"held {telling.held}: {telling.error!r}\n{telling.told}"
