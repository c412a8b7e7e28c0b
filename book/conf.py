"""Sphinx settings; tools/build_book.py first gathers this folder, the notebooks and MathJax."""

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))


from launch import repository_address, theme_options  # noqa: E402

# The folder of the pyproject.toml above the one that is built.
_root = next((folder for folder in HERE.parents if (folder / "pyproject.toml").exists()), None)
_settings = tomllib.loads((_root / "pyproject.toml").read_text("utf-8"))["project"] if _root else {}
repository = repository_address(_root)  # one setting, see _ext/launch.py

project = "Prototype mixture models"
author = "The pmms book authors"
copyright = "The pmms book authors. Text and figures CC BY 4.0, code Apache 2.0"
release = _settings.get("version", "")
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_exercise",
    "sphinx_togglebutton",
    "sphinxcontrib.bibtex",
    "book_extension",
    "exercises",
    "launch",
]
exclude_patterns = ["_ext", "**.ipynb_checkpoints"]

nb_execution_mode = "off"  # pages show what papermill ran
nb_merge_streams = True
# No widget manager: it would come from a CDN. A widget shows as its text.
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]

myst_enable_extensions = [
    "amsmath",
    "attrs_block",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
]
myst_heading_anchors = 3
myst_dmath_double_inline = True
myst_links_external_new_tab = True

# One local file; no font, no CDN. The dark theme needs no setting: glyphs take the text's colour.
mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {
    "tex": {
        "macros": {
            "R": r"\mathbb{R}",
            "norm": [r"\left\lVert #1 \right\rVert", 1],
            "argmax": r"\operatorname*{arg\,max}",
            "argmin": r"\operatorname*{arg\,min}",
        }
    },
    "options": {"enableMenu": False},
}

autodoc_typehints = "none"  # docstrings give shapes and types
napoleon_use_ivar = True

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "alpha"

html_theme = "sphinx_book_theme"
html_title = "Prototype mixture models"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_favicon = "_static/favicon.svg"
html_logo = "_static/favicon.svg"
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
html_show_sourcelink = False
html_copy_source = True
html_last_updated_fmt = None  # a date in every page would make each build differ
html_theme_options = {
    "logo": {"text": html_title, "alt_text": "Start page"},
    "navbar_persistent": [],  # the search field stands in the side bar already
    "footer_content_items": ["copyright.html"],
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "use_download_button": True,
    "use_fullscreen_button": False,
}
html_theme_options |= theme_options(repository)

copybutton_exclude = ".linenos, .gp, .go"
togglebutton_hint = "Show"
togglebutton_hint_hide = "Hide"
