"""A figure that a notebook shows as it is. Apart from `picture`, so that matplotlib is only loaded when something is drawn."""

import io

from matplotlib.figure import Figure


class Drawing(Figure):
    """Without pyplot, whose import is what makes notebooks show other figures."""

    def _repr_png_(self) -> bytes:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png", dpi=100)
        return drawn.getvalue()
