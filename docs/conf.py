"""The site: `make docs`. Its pages are Markdown, and their code cells are run
when it is built: a cell that fails fails the build."""

import inspect
import os
import pathlib
import sys

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform

HERE = pathlib.Path(__file__).parent
# What the start page's cell writes: the explorer's page of a small model.
DEMONSTRATION = HERE / "_demonstration"
DEMONSTRATION.mkdir(exist_ok=True)
sys.path.insert(0, str(HERE.parent))

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # TensorFlow's start-up chatter.
# Pages are run side by side, and their models are small.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
project = "vae_tf"
html_title = "vae_tf"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # docstrings with Args:, Returns:, Raises:
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "_demonstration", "demonstration"]
html_theme = "furo"
html_extra_path = ["_demonstration"]
html_static_path = ["_static"]
html_js_files = [("search.js", {"defer": "defer"})]
html_show_sourcelink = False
html_show_copyright = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds of a cell
nb_merge_streams = True
nb_output_stderr = "remove"
nb_render_markdown_format = "myst"  # with tables

default_role = "literal"  # `[B, D]` in a docstring
autodoc_typehints = "none"  # Signatures say them; shapes say more.
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "build, get_config, from_config"}
napoleon_custom_sections = [("Call arguments", "params_style")]


class Symbols(SphinxTransform):
    """`vae_tf.VAE` in any page links to what the API pages say of it."""

    default_priority = 500

    def apply(self, **kwargs):
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext().removesuffix("()")
            if not name.startswith("vae_tf.") or isinstance(
                literal.parent, nodes.reference | pending_xref
            ):
                continue
            link = pending_xref(
                "",
                literal.deepcopy(),
                refdomain="py",
                reftype="obj",
                reftarget=name,
                refdoc=self.env.docname,
                refwarn=False,  # Modules have no page.
            )
            literal.replace_self(link)


def constructor(app, what, name, obj, options, signature, return_annotation):
    """The arguments of a class: of a Keras layer Python gives (*args, **kwargs)
    alone.
    """
    if what != "class":
        return None
    given = [*inspect.signature(obj.__init__).parameters.values()][1:]
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in given]
    return str(inspect.Signature(bare)), None


def setup(app):
    app.connect("autodoc-process-signature", constructor)
    app.add_transform(Symbols)
    # It copies files, and leaves unsaid that pages may be read in parallel.
    app.extensions["sphinx-mathjax-offline"].parallel_read_safe = True
    return {"parallel_read_safe": True}
