"""A judgement as one HTML page that needs nothing but itself: verdicts, sentences, frames that show why."""

from collections.abc import Mapping

import jinja2

from dataset import Log
from evaluation import Comparison
from evaluation.report.examples import draw_labels
from export.credit import describe_change, describe_labels
from export.judgement import NOT_CREDITED, Judgement
from trashnet.models import Role


def judgement_page(judgement: Judgement, comparisons: Mapping[Role, Comparison], log: Log | None) -> str:
    """Render the page.

    ``comparisons``: those that the judgement was made from, with their examples; ``log``: has the frames that
    credit is given for.
    """
    credited = {
        sha256 for one in judgement.models.values() for credit in one.credit for sha256 in credit.frames
    }
    pictures = {} if log is None else {name: _picture(log, name) for name in sorted(credited)}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("export", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("judgement_page.html.j2")
    return template.render(
        judgement=judgement,
        comparisons=comparisons,
        pictures=pictures,
        describe_change=describe_change,
        describe_labels=describe_labels,
        not_credited=NOT_CREDITED,
    )


def _picture(log: Log, sha256: str) -> str:
    return draw_labels(log.frame(log.row_of[sha256]), log.taxonomy)
