"""Sphinx configuration."""

from importlib.metadata import version as installed_version

project = "simformer_ppl"
author = "The simformer_ppl authors"
copyright = "2026, the simformer_ppl authors"
version = release = installed_version("simformer-ppl")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
myst_enable_extensions = ["colon_fence", "dollarmath"]
nb_execution_mode = "off"  # docs/execute.py has run them
exclude_patterns = ["_build", "benchmarks"]
html_theme = "pydata_sphinx_theme"
html_title = "simformer_ppl"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_theme_options = {
    "header_links_before_dropdown": 7,
    "show_prev_next": False,
}
html_sidebars = {"index": [], "get_started": [], "comparison": []}

napoleon_attr_annotations = False
autodoc_typehints = "none"  # shapes and types stand in the docstrings
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
