"""The page of a study: valid, alone, escaped, and without sections that have nothing to say."""

import dataclasses
import math
import os
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from jaxopt_lm.errors import InputError
from jaxopt_lm.studies import page, points
from jaxopt_lm.studies.drawing import INK
from jaxopt_lm.studies.frames import only
from jaxopt_lm.studies.markup import csv, html_table, latex, markdown
from jaxopt_lm.studies.sentences import answers
from tests.studies import made_up

VOID = {"meta", "br", "hr", "img", "link", "input"}
NO_VERDICTS, NO_CHOICES = made_up.verdicts(made_up.table())[:0], made_up.choices(made_up.table())[:0]


class Walk(HTMLParser):
    """What a page is made of; fails where a tag is closed that is not open, or the other way round."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.ids, self.links, self.sections, self.text = [], [], [], [], {}
        self.elements = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.elements.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]
        if tag == "section":
            self.sections.append(values["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        where = self.sections[-1] if "section" in self.open else "header"
        self.text[where] = self.text.get(where, "") + data


def full_runs() -> pd.DataFrame:
    """Of two sizes."""
    runs = made_up.table({"embed_dim=64": 100_000, "embed_dim=128": 800_000})
    runs.loc[3, ["status", "loss"]] = ["failed", math.nan]
    return runs


@pytest.fixture(scope="module")
def full(shared_folder):
    """The folder of a study that has everything."""
    return shared_folder("page", lambda folder: page.write(made_up.report(full_runs()), folder))


@pytest.fixture(scope="module")
def walk(full):
    return Walk((full / "report.html").read_text())


def written(tmp_path, **changes) -> Walk:
    """A page without curves, which take their time."""
    page.write(made_up.report(**{"history": lambda _: {}} | changes), tmp_path)
    return Walk((tmp_path / "report.html").read_text())


def test_tags_are_balanced_and_ids_unique(walk):
    assert len(walk.ids) > 500
    assert len(set(walk.ids)) == len(walk.ids)
    assert walk.elements.count("svg") == 2 * 8


def test_it_needs_nothing_else(full, walk):
    assert walk.links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in walk.links)
    assert {link[1:] for link in walk.links if link.startswith("#")} <= set(walk.ids)
    text = (full / "report.html").read_text()
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(walk.ids)
    for forbidden in ("http:", "https:", "@import", "url(h", "<script", "<link", "<iframe"):
        assert forbidden not in text, forbidden


def test_sections_come_in_order_the_answer_first(walk):
    assert walk.sections == [
        *("answers", "differences", "rates", "verdicts", "choices", "curves", "speed_ups", "stability", "claims"),
        *("sizes", "tuning", "heat_maps", "gradient_norms", "effective_rates", "not_completed", "runs", "facts"),
    ]


def test_each_optimizer_has_its_sentence_the_best_first(walk):
    for setting in ("embed_dim=64", "embed_dim=128"):
        start = walk.text["answers"].index(setting)
        text = walk.text["answers"][start:]
        places = [text.index(name) for name in ("better muon", "not resolved lion", "worse <b>sgd & co", "adamw, the")]
        assert places == sorted(places)
    assert "muon is better: -0.060 nats [-0.075, -0.045]." in walk.text["answers"]


def test_of_many_settings_verdicts_are_counted():
    runs = made_up.table({f"embed_dim={64 * 2**i}": 100_000 * 8**i for i in range(4)}, seeds=1)
    judged = made_up.verdicts(runs)
    judged = judged.drop(judged.index[(judged.arm == "lion") & (judged.setting == "embed_dim=64")])
    text = re.sub("<[^>]+>", "", answers(made_up.report(runs, verdicts=judged)))
    assert "muon against adamw in 4 settings: better in 4, worse in 0, not resolved in 0." in text
    assert "lion against adamw in 4 settings: better in 0, worse in 0, not resolved in 3, no verdict in 1." in text


def test_names_are_escaped(full, tmp_path):
    text = (full / "report.html").read_text()
    assert "<b>sgd" not in text
    assert text.count("&lt;b&gt;sgd &amp; co") > 10
    name = "</style><script>alert(1)</script> -- $x_1$ \"'"
    runs = made_up.table().replace({"lion": name})
    judged, chosen = (
        frame.replace({"lion": name}) for frame in (made_up.verdicts(made_up.table()), made_up.choices(made_up.table()))
    )
    walk = written(
        tmp_path,
        runs=runs,
        verdicts=judged,
        choices=chosen,
        name=name,
        asked=name,
        arms=[*made_up.BEST, name],
        history=lambda _: {},
    )
    assert "script" not in walk.elements
    assert walk.text["header"].count(name) == 3  # title, heading, question
    assert name in walk.text["rates"]


def test_a_study_that_runs_says_so(tmp_path):
    runs = made_up.table()
    runs.loc[runs.index % 2 == 1, ["status", "loss"]] = ["missing", math.nan]
    nothing = pd.DataFrame(columns=["claim"])
    walk = written(tmp_path, runs=runs, running=True, verdicts=NO_VERDICTS, claims=nothing)
    ended, diverged = (runs.status != "missing").sum(), (runs.status == "diverged").sum()
    said = f"Still running: {ended} of {len(runs)} runs have ended, {diverged} diverged, "
    assert said in walk.text["header"]
    assert "so far. What is below may change." in walk.text["header"]
    assert "muon: no verdict yet." in walk.text["answers"]
    assert walk.sections[:2] == ["answers", "rates"]
    assert not {"differences", "verdicts", "claims", "sizes", "heat_maps"} & set(walk.sections)


def test_a_study_that_has_just_begun_is_a_page_without_figures(tmp_path):
    runs = made_up.table().assign(status="missing", loss=math.nan, seconds=math.nan)
    walk = written(
        tmp_path, runs=runs, running=True, verdicts=NO_VERDICTS, choices=NO_CHOICES, claims=pd.DataFrame(), facts={}
    )
    assert walk.sections == ["answers", "runs"]
    assert "0 of 53 runs have ended." in walk.text["header"]
    assert not os.listdir(tmp_path / "figures")


def test_a_done_study_says_what_did_not_end(tmp_path):
    runs = made_up.table()
    runs.loc[[0, 1], ["status", "loss"]] = [["missing", math.nan], ["failed", math.nan]]
    walk = written(tmp_path, runs=runs)
    assert "53 runs, 5 diverged, 1 failed, 1 missing, " in walk.text["header"]
    assert "Still running" not in walk.text["header"]
    assert "6 runs" in walk.text["not_completed"]


def test_a_table_says_what_it_holds(walk):
    assert "times faster an optimizer gets to the last loss of adamw" in walk.text["speed_ups"]
    assert "in seconds" in walk.text["speed_ups"]
    assert "A bound from below" in walk.text["speed_ups"]
    assert "No seconds" not in walk.text["speed_ups"]
    assert "more than 50 logged training losses" in walk.text["stability"]


def test_on_different_hardware_there_are_no_seconds(tmp_path):
    runs = made_up.table(arms=("adamw", "muon"))
    walk = written(tmp_path, runs=runs, history=made_up.history, one_machine=False)
    assert "No seconds: runs were trained on several kinds of hardware or versions." in walk.text["speed_ups"]
    table = pd.read_csv(tmp_path / "tables" / "speed_ups.csv")
    assert table.in_steps.notna().all()
    assert table.in_seconds.isna().all()
    assert pd.read_csv(tmp_path / "figures" / "curves.csv").seconds.isna().all()
    assert "in seconds |" not in (tmp_path / "tables" / "speed_ups.md").read_text()


def test_figures_are_saved_with_what_they_draw(full):
    names = ["curves", "differences", "effective_rates", "gradient_norms", "heat_maps", "rates", "sizes", "tuning"]
    right = sorted(f"{name}{end}" for name in names for end in (".csv", ".png", ".svg", "-column.svg"))
    assert sorted(os.listdir(full / "figures")) == right
    report = made_up.report(full_runs())
    drawn = pd.read_csv(full / "figures" / "curves.csv")
    found = points.curve_points(report.table, report.choices, report.history)
    pd.testing.assert_frame_equal(drawn, found, check_dtype=False)
    assert (full / "figures" / "rates.png").read_bytes().startswith(b"\x89PNG")
    for name in names:
        svg = (full / "figures" / f"{name}.svg").read_text()
        assert svg.startswith("<?xml")
        assert svg.count("<svg") == 1


def test_the_csv_of_rates_has_every_point(full):
    drawn = pd.read_csv(full / "figures" / "rates.csv", keep_default_na=False, na_values=[""])
    runs = pd.read_csv(full / "tables" / "runs.csv")
    completed = runs[runs.status == "completed"]
    found = only(drawn, status="completed")
    assert sorted(zip(found.arm, found.learning_rate, found.loss, strict=True)) == sorted(
        zip(completed.arm, completed.learning_rate, completed.loss, strict=True)
    )
    assert only(drawn, status="diverged").loss.isna().all()
    assert len(only(drawn, status="chosen")) == 8


def test_the_same_report_gives_the_same_bytes(tmp_path):
    names = ("report.html", "figures/rates.svg", "figures/rates.png", "figures/rates.csv", "tables/verdicts.tex")
    found = []
    for name in ("one", "two"):
        page.write(made_up.report(history=lambda _: {}), tmp_path / name)
        found.append([(tmp_path / name / file).read_bytes() for file in names])
    assert found[0] == found[1]


def test_ink_is_the_pages(full):
    text = (full / "report.html").read_text()
    assert INK not in text.partition("</style>")[2]
    assert "currentColor" in text
    assert "prefers-color-scheme: dark" in text


def test_tables_are_saved_in_three_formats(full):
    names = ["choices", "claims", "not_completed", "runs", "speed_ups", "stability", "verdicts"]
    assert sorted(os.listdir(full / "tables")) == sorted(
        f"{name}.{end}" for name in names for end in ("csv", "md", "tex")
    )
    assert len(pd.read_csv(full / "tables" / "runs.csv")) == 106


TABLE = pd.DataFrame(
    {
        "arm": ["a_b|c", "<b>"],
        "learning_rate": [3e-5, math.nan],
        "n": [3, 14],
        "inside": [True, False],
        "loss": [4.25, 1234.5],
    }
)


def test_markdown():
    assert markdown(TABLE) == (
        "| arm | learning rate | n | inside | loss |\n| --- | --- | --- | --- | --- |\n"
        "| a\\_b\\|c | 3e-05 | 3 | yes | 4.2500 |\n| \\<b\\> |  | 14 | no | 1,234.5 |\n"
    )


def test_rates_keep_their_digits():
    frame = pd.DataFrame({"neighbours": [(3.16e-5, 0.01)], "default_rate": [3e-6], "default_loss": ["not tried"]})
    assert markdown(frame).endswith("| 3.16e-05, 0.01 | 3e-06 | not tried |\n")


def test_latex():
    assert latex(TABLE) == (
        "\\begin{tabular}{lrrlr}\n\\toprule\narm & learning rate & n & inside & loss \\\\\n\\midrule\n"
        "a\\_b\\textbar{}c & 3e-05 & 3 & yes & 4.2500 \\\\\n"
        "\\textless{}b\\textgreater{} &  & 14 & no & 1,234.5 \\\\\n\\bottomrule\n\\end{tabular}\n"
    )


def test_csv_has_all_digits():
    frame = pd.DataFrame({"loss": [1 / 3, math.nan], "arm": ['a,"b"', "c"]})
    assert csv(frame) == 'loss,arm\n0.3333333333333333,"a,""b"""\n,c\n'


def test_a_table_of_html():
    walk = Walk(html_table(TABLE))
    assert walk.elements.count("tr") == 3
    assert walk.elements.count("td") == 10
    text = html_table(pd.DataFrame({"evidence": ["x " * 20, "x " * 20 + "y"], "n": [1, 2]}))
    assert (text.count('<td class="long">'), text.count('<td class="right">')) == (1, 2)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "figures").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        page.write(dataclasses.replace(made_up.report(), facts={}), tmp_path)
