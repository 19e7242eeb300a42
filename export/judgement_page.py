"""A judgement as one HTML page that needs nothing but itself: verdicts, sentences, frames that show why."""

from collections.abc import Mapping

import jinja2

from evaluation import Comparison
from export.judgement import Judgement
from trashnet.models import Role


def judgement_page(judgement: Judgement, comparisons: Mapping[Role, Comparison]) -> str:
    """Render the page. ``comparisons``: those that the judgement was made from, with their examples."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("export", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("judgement_page.html.j2")
    return template.render(judgement=judgement, comparisons=comparisons)
