from pmms import _torchvision  # noqa: F401  (before anything imports torchvision)
