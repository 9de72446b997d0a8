"""Sphinx's configuration: `make docs` builds these pages, as they are, into a site under build/docs."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

from dimml import __version__
from python_names import MOCKED

project = "dimml"
author = "the dimml maintainers"
copyright = "the dimml maintainers"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
source_suffix = {".md": "markdown"}
exclude_patterns = [
    "_extensions",
    # results.md holds these already.
    "results/notes.md",
    *(f"results/tables/{page.name}" for page in HERE.glob("results/tables/*.md") if "_conditions" not in page.name),
]
# Links to a heading of another page are checked to this depth.
myst_heading_anchors = 4
# Options are written --option, code as it is typed.
smartquotes = False
highlight_language = "bash"
# JSON with an ellipsis and a server's configuration are shown as they are.
suppress_warnings = ["misc.highlighting_failure"]

default_role = "code"
autodoc_mock_imports = MOCKED
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# Types of other packages, and of ours that are not public, have no page here.
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = "dimml"
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = ["scrolling.js"]
html_search_scorer = str(HERE / "_extensions" / "search_scorer.js")
# Its own page has the search box and what was found; there is no index of names beside it.
html_use_index = False
html_domain_indices = False
