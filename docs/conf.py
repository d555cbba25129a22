"""Sphinx configuration."""

from importlib.metadata import version as installed_version

project = "simformer_ppl"
author = "The simformer_ppl authors"
copyright = "2026, the simformer_ppl authors"
version = release = installed_version("simformer-ppl")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
exclude_patterns = ["_build", "benchmarks"]
html_theme = "pydata_sphinx_theme"
html_title = "simformer_ppl"

napoleon_attr_annotations = False
autodoc_typehints = "none"  # shapes and types stand in the docstrings
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
