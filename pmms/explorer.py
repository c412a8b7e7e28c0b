"""The explorer: pictures, settings of the mixture, and what EM makes of them, linked.

In JupyterLab::

    from pmms.explorer import Explorer
    Explorer()

One thread is enough: ``torch.set_num_threads(1)``. On a busy machine two wait for each other.

``make explore`` serves it alone, as a Voilà app. Sliders and menus are ipywidgets. The pictures are
one anywidget (``explorer.js``): a widget of ipywidgets cannot be clicked into, and a figure drawn
by matplotlib takes longer than EM. Its code travels with the widget, no server is asked.
"""

import html
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets

from pmms.backbones import Backbone, build_backbone
from pmms.exploration import LEVELS, MAX_K, SIZE, STEPS, Scene, Settings
from pmms.explorer_data import ASSETS, frame_data, plane_data, scene_data
from pmms.pairs import Pair, cat, parts_pair, polygon_mask, portraits
from pmms.predict import read_mask, read_picture
from pmms.seeding import INITS

KAPPAS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500)
DRAWN, OWN = "drawn (PartsVOC)", "your own"
SOURCES = {
    DRAWN: parts_pair,
    "photographs: two portraits": portraits,
    "photograph: cat": cat,
}
KEPT_SCENES = 8


class View(anywidget.AnyWidget):
    """The pictures. Its traits are what :func:`scene_data` and :func:`frame_data` give.

    Attributes:
        pixel: the chosen position, {"where": "support" or "query", "row", "column"}, or {}.
        outline: corners [x, y] as shares of the support's width and height.
        drawing: whether clicks into the support add corners.
    """

    _esm = ASSETS / "explorer.js"
    _css = ASSETS / "explorer.css"
    scene = traitlets.Dict().tag(sync=True)
    plane = traitlets.Dict().tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    pixel = traitlets.Dict().tag(sync=True)
    outline: traitlets.List[tuple[float, float]] = traitlets.List().tag(sync=True)
    drawing = traitlets.Bool(False).tag(sync=True)


class Explorer(widgets.VBox):
    """Pick a picture, move the sliders, click into the pictures.

    Each part is an attribute, so that code can turn it too: ``explorer.k.value = 5``. What cannot
    be shown is said in ``message``.

    Args:
        source: what is shown first, one of ``SOURCES``.
        backbone: None for EfficientNet-Lite0, whose weights come with pip.
        size: longer side of the pictures in pixels; the grid of positions is 8 times smaller.
        steps: EM steps.
        settings: where the controls of the mixture start.
    """

    def __init__(
        self,
        source: str = "photographs: two portraits",
        *,
        backbone: Backbone | None = None,
        size: int = SIZE,
        steps: int = STEPS,
        settings: Settings | None = None,
    ) -> None:
        settings = settings or Settings()
        self._backbone = backbone or build_backbone("efficientnet_lite0")
        self._size, self._steps = size, steps
        self._scenes: dict[tuple[str, int], Scene] = {}
        self.scene: Scene | None = None
        self._own: Pair | None = None
        self._read_with: tuple[Any, ...] = ()  # the uploads behind it

        self.source = _menu("picture", (*SOURCES, OWN), source)
        self.number = _slider("episode", 6, 0, 299)
        self.k = _slider("K", settings.k, 1, MAX_K)
        self.kappa = widgets.SelectionSlider(
            options=sorted({*KAPPAS, settings.kappa}), value=settings.kappa, description="κ"
        )
        self.step = _slider("EM step", steps, 0, steps)
        self.kernel = _menu("kernel", (("von Mises-Fisher", "vmf"), ("Gaussian", "gaussian")))
        self.init = _menu("start", INITS, settings.init)
        self.seed = _slider("seed", settings.seed, 0, 19)
        self.level = _menu("features", LEVELS, settings.level)
        self.kernel.value = settings.kernel
        self.in_plane = _menu("plane", ("PCA", "t-SNE"), "PCA")
        self.play = widgets.Play(min=0, max=steps, value=steps, interval=400)
        self._link = widgets.jslink((self.play, "value"), (self.step, "value"))

        self.picture, self.mask, self.query = (
            widgets.FileUpload(accept="image/*", description=name)
            for name in ("picture", "mask", "query")
        )
        self.draw = widgets.ToggleButton(description="draw an outline")
        self.use = widgets.Button(description="use the outline")
        self.clear = widgets.Button(description="clear it")
        self.view = View()
        self.message = widgets.HTML()
        self.summary = widgets.HTML()
        super().__init__([self._controls(), self.message, self.summary, self.view])
        self._observe()
        self._open()

    def __repr__(self) -> str:  # stands in the book, where no kernel runs
        return "The explorer needs a kernel: run this notebook, or type make explore."

    def _controls(self) -> widgets.Widget:
        wrap = widgets.Layout(display="flex", flex_flow="row wrap", align_items="center")
        upload = widgets.HTML(
            "Pictures of up to 8 MB. Without a query the picture itself is the query. The mask is "
            "a file, or an outline that you draw: click its corners into the support."
        )
        own = widgets.VBox(
            [widgets.HBox([self.picture, self.mask, self.query], layout=wrap), upload]
        )
        outline = widgets.HBox([self.draw, self.use, self.clear], layout=wrap)
        self._of_source = {OWN: own, DRAWN: self.number}
        return widgets.VBox(
            [
                widgets.HBox([self.source, self.number, outline], layout=wrap),
                own,
                widgets.HBox([self.k, self.kappa, self.step, self.play], layout=wrap),
                widgets.HBox(
                    [self.kernel, self.init, self.seed, self.level, self.in_plane], layout=wrap
                ),
            ]
        )

    def _observe(self) -> None:
        for control in (self.source, self.number):
            control.observe(self._open, "value")
        for control in (self.picture, self.mask, self.query):
            control.observe(self._upload, "value")
        of_mixture = (self.k, self.kappa, self.kernel, self.init, self.seed, self.level)
        for control in (*of_mixture, self.step, self.in_plane):
            control.observe(self._update, "value")
        self.draw.observe(lambda change: setattr(self.view, "drawing", change["new"]), "value")
        self.use.on_click(self._use_outline)
        self.clear.on_click(lambda _: setattr(self.view, "outline", []))

    @property
    def settings(self) -> Settings:
        """Those that the controls show."""
        names = ("k", "kappa", "kernel", "init", "seed", "level")
        return Settings(**{name: getattr(self, name).value for name in names})

    def _open(self, _: object = None) -> None:
        """Show the picture that is chosen."""
        for source, box in self._of_source.items():
            box.layout.display = None if source == self.source.value else "none"
        self._attempt(lambda: self._show(self._chosen()))

    def _chosen(self) -> Scene:
        source = self.source.value
        if source == OWN:
            if self._own is None:
                raise ValueError("load a picture of your own")
            return self._scene_of(self._own)
        number = (self.number.value,) if source == DRAWN else ()
        if (source, *number) not in self._scenes:
            if len(self._scenes) == KEPT_SCENES:
                del self._scenes[next(iter(self._scenes))]
            self._scenes[source, *number] = self._scene_of(SOURCES[source](*number))
        return self._scenes[source, *number]

    def _scene_of(self, pair: Pair) -> Scene:
        return Scene(pair, self._backbone, size=self._size, steps=self._steps)

    def _show(self, scene: Scene) -> None:
        self.scene = scene
        with self.view.hold_sync():
            self.view.scene = scene_data(scene)
            row, column = scene.cells[len(scene.cells) // 2].tolist()
            self.view.pixel = {"where": "support", "row": row, "column": column}
            self.view.outline = []
            self._draw(scene)

    def _update(self, _: object = None) -> None:
        """Show the mixture that is chosen."""
        if self.scene is not None:
            self._attempt(partial(self._draw, self.scene))

    def _draw(self, scene: Scene) -> None:
        settings, step = self.settings, self.step.value
        path = scene.path(settings)
        if self.in_plane.value == "t-SNE":
            self._say("t-SNE is being computed. It is kept for these features.")
        plane = scene.plane(settings.level, self.in_plane.value)
        with self.view.hold_sync():
            self.view.plane = plane_data(plane)
            self.view.frame = frame_data(path, scene, step, scene.place(plane, settings, step))
        likelihood = path.log_likelihood[step, 0]
        facts = [
            html.escape(scene.pair.name),
            f"{len(scene.cells)} of {scene.inside.numel()} positions on the object",
            f"{likelihood:.2f} nats per sample",
        ]
        if plane.explained is not None:
            facts.append(f"the plane shows {plane.explained:.0%} of the variance")
        if (iou := scene.iou(path, step)) is not None:
            facts.append(f"IoU on the query {iou:.2f}")
        self.summary.value = " · ".join(facts)

    def _upload(self, change: Mapping[str, Any]) -> None:
        if not change["new"]:
            return
        if change["owner"] is self.picture:
            # A mask and a query that were read with another picture do not belong to this one.
            for other in (self.mask, self.query):
                if any(other.value is value for value in self._read_with):
                    other.value = ()
        self._attempt(self._read_own)
        if self.message.value:
            return
        if self.source.value == OWN:
            self._open()
        else:
            self.source.value = OWN

    def _read_own(self) -> None:
        if not self.picture.value:
            raise ValueError("load the support picture first")
        name = self.picture.value[0]["name"]
        support = _read(self.picture.value[0], read_picture)
        query = _read(self.query.value[0], read_picture) if self.query.value else support
        if self.mask.value:
            mask = _read(self.mask.value[0], read_mask)
        else:  # something to see until there is one
            mask = polygon_mask(((0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7)), support)
            name += " (no mask yet, the middle is taken: draw an outline, or load a mask)"
        self._own = Pair(name, support, mask, query)
        self._read_with = tuple(one.value for one in (self.mask, self.query) if one.value)

    def _use_outline(self, _: object) -> None:
        def use() -> None:
            if self.scene is None:
                raise ValueError("load a picture first")
            pair = self.scene.pair
            mask = polygon_mask(self.view.outline, pair.support)
            drawn = replace(pair, name=f"{pair.name.partition(' (')[0]} (own outline)", mask=mask)
            if self.source.value == OWN:
                self._own = drawn
            self._show(self._scene_of(drawn))
            self.draw.value = False

        self._attempt(use)

    def _attempt(self, action: Callable[[], None]) -> None:
        """Do it; where a person's choice cannot be followed, say why."""
        text = ""
        try:
            action()
        except (ValueError, OSError) as error:
            text = str(error)
        self._say(text)

    def _say(self, text: str) -> None:
        self.message.value = f'<b role="alert">{html.escape(text)}</b>' if text else ""


def _read(upload: Mapping[str, Any], read: Callable[[Path], np.ndarray]) -> np.ndarray:
    """Read an uploaded file; messages name it as the person does."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / (Path(upload["name"]).name or "upload")
        path.write_bytes(upload["content"])
        try:
            return read(path)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{path.parent}/", "")) from error


def _menu(name: str, options: Any, value: str | None = None) -> widgets.Dropdown:
    menu = widgets.Dropdown(options=options, description=name)
    if value is not None:
        menu.value = value
    return menu


def _slider(name: str, value: int, low: int, high: int) -> widgets.IntSlider:
    return widgets.IntSlider(value, low, high, description=name)
