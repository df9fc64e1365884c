"""The site of the documentation: ``make docs`` builds it into build/docs.

Each page is a Markdown file that can be read as it is. What the site adds is made while it is
built: the reference from the docstrings, the index of C's names from libevent's headers.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE / "_ext"), str(ROOT)]

import libevent_py  # noqa: E402
from libevent_py import types  # noqa: E402

project = "libevent_py"
author = "The libevent_py authors"
copyright = "The libevent_py authors. BSD-3-Clause, like libevent"
version = release = libevent_py.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "reference",
    "c_index",
    "departures",
    "examples",
    "links",
    "pictures",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_ext", "_static"]

myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 4
myst_url_schemes = {"http": None, "https": None, "mailto": None, "repo": None}

# A name in single backquotes is one of Python's; where there is none, the build fails.
nitpicky = True
# HAProxy's language is known to GitHub, but not to Pygments.
suppress_warnings = ["misc.highlighting_failure"]
default_role = "py:obj"
nitpick_ignore_regex: list[tuple[str, str]] = []

autoclass_content = "both"  # what a class is, and what its arguments are
autodoc_member_order = "bysource"
autodoc_type_aliases = {name: name for name in types.__all__}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = True
python_maximum_signature_line_length = 80
python_display_short_literal_types = True
add_module_names = False
toc_object_entries_show_parents = "hide"

# Python's own names lead to its documentation where its inventory is installed, as Debian's package
# python3-doc does; nothing is fetched.
INVENTORIES = sorted(Path("/usr/share/doc").glob("python3*/html/objects.inv"))
intersphinx_mapping = {}
if INVENTORIES:
    intersphinx_mapping["python"] = ("https://docs.python.org/3", str(INVENTORIES[-1]))

html_theme = "furo"
html_title = f"libevent_py {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_sourcelink = False
pygments_style = "default"
pygments_dark_style = "github-dark"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
