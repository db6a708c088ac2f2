"""The documentation as a site: ``python -m sphinx -W docs SITE``."""

from fer import __version__

project = "fer"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
suppress_warnings = ["ref.python"]  # names of torch, numpy and others are not looked up

myst_heading_anchors = 3  # links such as data.md#fer2013, as code hosts resolve them

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

html_theme = "furo"
html_title = f"fer {version}"
html_show_copyright = False
