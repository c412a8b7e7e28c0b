from ipywidgets import HTML, VBox

from pmms.explorer import Explorer

VBox([HTML("<h1>Prototype mixtures, explored</h1>"), Explorer()])
