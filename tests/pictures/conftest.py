import pytest
from matplotlib.figure import Figure

from modeling_pcl.pictures import style


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that are drawn, of a page of several its tiles and then its charts."""
    seen, render = [], style.rendered
    monkeypatch.setattr(style, "rendered", lambda figure: (seen.append(figure), render(figure))[1])
    return seen
