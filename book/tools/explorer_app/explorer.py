import torch
from ipywidgets import HTML, VBox

from pmms.explorer import Explorer

torch.set_num_threads(1)  # such small matrices gain nothing from a second one
VBox([HTML("<h1>Prototype mixtures, explored</h1>"), Explorer()])
