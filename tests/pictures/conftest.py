import pytest
from matplotlib.figure import Figure

from modeling_pcl.pictures import style


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that are drawn, of a page of several its tiles and then its charts."""
    figures, render = [], style.render_figure
    monkeypatch.setattr(style, "render_figure", lambda figure: (figures.append(figure), render(figure))[1])
    return figures
