"""The Grafana dashboards: Gains, Serving, Models, Jobs.

    python deploy/grafana/dashboards.py             # writes deploy/grafana/dashboards/*.json
    python deploy/grafana/dashboards.py --check     # says which are stale, exit code 1

They ask the recording rules of deploy/prometheus, so quantiles are worked out once and not for each viewer, and assume
no label but `job` and `instance`. The variables `model` and `shadow` of Gains are a live model and the one that answers
a share of its requests again (`lowpass serve --shadow student:teacher=0.1`): usually a student and its teacher. This
file is longer than others because it is a list of panels.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
SERVER = 'job="$job", instance=~"$instance"'
PAIR = 'job="$job", model="$model", shadow_model="$shadow"'
BOTH = 'job="$job", model=~"$model|$shadow"'
SECONDS, RATE, BYTES, SHARE, TIMES, COUNT = "s", "reqps", "bytes", "percentunit", "none", "short"


@dataclass(frozen=True)
class View:
    """One panel.

    Args:
        unit: Grafana's name of it.
        queries: Legend → expression.
        about: What the reader should make of it.
        kind: "lines", "number" or "table".
        width: In 24ths of the page.
        bounds: Values from which a number is orange, and green.
    """

    title: str
    unit: str
    queries: dict[str, str]
    about: str = ""
    kind: str = "lines"
    width: int = 8
    bounds: tuple[float, float] | None = None


def build_panel(view: View) -> timeseries.Panel | stat.Panel | table.Panel:
    """The SDK's panel of a view."""
    panel: timeseries.Panel | stat.Panel | table.Panel
    if view.kind == "number":
        panel = stat.Panel().height(5).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        low, high = view.bounds or (None, None)
        colours = [("red", None), ("orange", low), ("green", high)] if view.bounds else [("green", None)]
        steps = [Threshold(color=colour, value=value) for colour, value in colours]
        if view.unit == TIMES:
            panel.decimals(1)
        panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    elif view.kind == "table":
        hidden = dict.fromkeys(("Time", "Value", "__name__", "service", "alertstate"), True)
        panel = table.Panel().height(8)
        panel.with_transformation(DataTransformerConfig(id_val="organize", options={"excludeByName": hidden}))
    else:
        legend = common.VizLegendOptions().show_legend(True).placement(LegendPlacement.BOTTOM)
        panel = timeseries.Panel().height(8).axis_soft_min(0).legend(legend.display_mode(LegendDisplayMode.LIST))
    panel.title(view.title).unit(view.unit).description(view.about).span(view.width).datasource(SOURCE)
    for letter, (legend_format, expr) in zip(ascii_uppercase, view.queries.items(), strict=False):
        query = prometheus.Dataquery().ref_id(letter).expr(expr).legend_format(legend_format).datasource(SOURCE)
        if view.kind == "table":
            query.instant().format(PromQueryFormat.TABLE)
        elif "exemplars" in view.title:
            query.exemplar(True)
        panel.with_target(query)
    return panel


@dataclass(frozen=True)
class Page:
    """One dashboard.

    Args:
        variables: Name, where its values are found, and whether several may be chosen.
        rows: Title → panels.
    """

    name: str
    about: str
    variables: Sequence[tuple[str, str, bool]]
    rows: dict[str, list[View]]


def build(page: Page) -> str:
    """A dashboard as JSON."""
    made = (
        dashboard.Dashboard(f"Lowpass / {page.name}")
        .uid(f"lowpass-{page.name.lower()}")
        .description(page.about)
        .tags(["lowpass"])
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .link(
            dashboard.DashboardLink("Lowpass").type("dashboards").tags(["lowpass"]).keep_time(True).include_vars(True)
        )
    )
    for variable, query, several in page.variables:
        found = dashboard.QueryVariable(variable).label(variable.replace("_", " ").capitalize()).datasource(SOURCE)
        found.query(query).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        if several:
            found.multi(True).include_all(True).all_value(".*")
        made.with_variable(found)
    ids = count(1)
    for title, views in page.rows.items():
        made.with_row(dashboard.Row(title).id(next(ids)))
        for view in views:
            made.with_panel(build_panel(view).id(next(ids)))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


JOB = ("job", 'label_values(up{job=~".*lowpass.*"}, job)', False)
INSTANCE = ("instance", 'label_values(up{job="$job"}, instance)', True)


FASTER = "job:lowpass_shadow_duration_seconds:p50_5m"
ANSWERS = "job:lowpass_shadow_answers_per_second:mean5m"
GAINS = Page(
    "Gains",
    "A model beside the one that answers a share of its requests again: usually a student, and its teacher."
    " Both answered the same questions on the same machine.",
    [
        JOB,
        ("model", 'label_values(job:lowpass_shadow_overlap:mean5m{job="$job"}, model)', False),
        (
            "shadow",
            'label_values(job:lowpass_shadow_overlap:mean5m{job="$job", model="$model"}, shadow_model)',
            False,
        ),
    ],
    {
        "What is won, and what is kept": [
            View(
                "Times faster",
                TIMES,
                {"": f'{FASTER}{{{PAIR}, arm="shadow"}} / ignoring (arm) {FASTER}{{{PAIR}, arm="live"}}'},
                "Median time from question to answer of $shadow, by that of $model.",
                "number",
                6,
                (1, 1.5),
            ),
            View(
                "Times the answers a second",
                TIMES,
                {"": f'{ANSWERS}{{{PAIR}, arm="live"}} / ignoring (arm) {ANSWERS}{{{PAIR}, arm="shadow"}}'},
                "Of one thread that does nothing else: what the same machines could answer.",
                "number",
                6,
                (1, 1.5),
            ),
            View(
                "Times smaller",
                TIMES,
                {
                    "": 'max(lowpass_bundle_bytes{job="$job", model="$shadow"})'
                    ' / max(lowpass_bundle_bytes{job="$job", model="$model"})'
                },
                "All files of $shadow, by those of $model: memory and disk.",
                "number",
                6,
                (1, 1.5),
            ),
            View(
                "Of the list in common (overlap@k)",
                SHARE,
                {"": f"job:lowpass_shadow_overlap:mean1h{{{PAIR}}}"},
                "Share of a list of $shadow that $model gives too, over the last hour.",
                "number",
                6,
                (0.4, 0.6),
            ),
        ],
        "Latency": [
            View(
                "Question to answer, the same requests",
                SECONDS,
                {
                    "$model p50": f'{FASTER}{{{PAIR}, arm="live"}}',
                    "$shadow p50": f'{FASTER}{{{PAIR}, arm="shadow"}}',
                    "$model p99": f'job:lowpass_shadow_duration_seconds:p99_5m{{{PAIR}, arm="live"}}',
                    "$shadow p99": f'job:lowpass_shadow_duration_seconds:p99_5m{{{PAIR}, arm="shadow"}}',
                },
                "Without waiting for a thread. The shadow works behind the callers, at a lower"
                " priority: where much is asked it looks slower than it is.",
                width=12,
            ),
            View(
                "By stage, median, of what each was asked",
                SECONDS,
                {"{{model}} {{stage}}": f"job:lowpass_stage_duration_seconds:p50_5m{{{BOTH}}}"},
                "queue: waiting; encode: ids to vectors; search: vectors to candidates; filter: those to answers."
                " A shadow that nobody asks directly has no stages.",
                width=12,
            ),
        ],
        "Throughput, memory": [
            View(
                "Answers a second of one thread",
                RATE,
                {
                    "$model": f'{ANSWERS}{{{PAIR}, arm="live"}}',
                    "$shadow": f'{ANSWERS}{{{PAIR}, arm="shadow"}}',
                },
            ),
            View(
                "All files",
                BYTES,
                {"{{model}}:{{version}}": f"max by (model, version) (lowpass_bundle_bytes{{{BOTH}}})"},
            ),
            View(
                "Index, for each item",
                BYTES,
                {
                    "{{model}}:{{version}}": f"max by (model, version) (lowpass_index_bytes{{{BOTH}}})"
                    f" / max by (model, version) (lowpass_items{{{BOTH}}})"
                },
            ),
        ],
        "Quality": [
            View(
                "Overlap of lists",
                SHARE,
                {
                    "mean": f"job:lowpass_shadow_overlap:mean5m{{{PAIR}}}",
                    "lowest tenth of requests": f"job:lowpass_shadow_overlap:p10_5m{{{PAIR}}}",
                },
            ),
            View(
                "Agreement of ranks",
                TIMES,
                {"Spearman, median": f"job:lowpass_shadow_rank_correlation:p50_5m{{{PAIR}}}"},
                "Of the items that both lists hold: 1 the same order, 0 none, -1 the reverse.",
            ),
            View(
                "Recall@20 and NDCG@20, measured before serving",
                TIMES,
                {
                    "{{model}}:{{version}} {{metric}}": "max by (model, version, metric)"
                    f' (lowpass_model_quality{{{BOTH}, metric=~"(recall|ndcg)@20"}})'
                },
            ),
        ],
    },
)


EACH_SERVER = "instance:lowpass_request_duration_seconds"
SERVING = Page(
    "Serving",
    "What callers get: rates, errors, latency, and what the servers need for it.",
    [JOB, INSTANCE],
    {
        "Now": [
            View("Servers up", COUNT, {"": 'sum(up{job="$job"})'}, kind="number", width=4, bounds=(1, 1)),
            View("Requests", RATE, {"": f"sum(instance:lowpass_requests:rate5m{{{SERVER}}})"}, kind="number", width=4),
            View("Errors", SHARE, {"": 'job:lowpass_errors:ratio5m{job="$job"}'}, kind="number", width=4),
            View(
                "Over 50 ms, one hour",
                SHARE,
                {"": 'job:lowpass_slow:ratio1h{job="$job"}'},
                "The objective allows 1 %.",
                kind="number",
                width=4,
            ),
            View("In flight", COUNT, {"": f"sum(lowpass_requests_in_flight{{{SERVER}}})"}, kind="number", width=4),
            View(
                "First certificate ends",
                SECONDS,
                {"": f"min(lowpass_certificate_expiry_timestamp_seconds{{{SERVER}}}) - time()"},
                kind="number",
                width=4,
                bounds=(2 * 86400, 14 * 86400),
            ),
            View(
                "Alerts",
                TIMES,
                {"": 'ALERTS{service="lowpass", alertstate="firing"}'},
                "docs/runbooks.md says what to do about each.",
                kind="table",
                width=24,
            ),
        ],
        "Requests": [
            View("By code", RATE, {"{{code}}": f"sum by (code) (instance:lowpass_requests:rate5m{{{SERVER}}})"}),
            View(
                "By method and model",
                RATE,
                {"{{method}} {{model}}": f"sum by (method, model) (instance:lowpass_requests:rate5m{{{SERVER}}})"},
            ),
            View("Refused, by reason", SHARE, {"{{reason}}": 'job_reason:lowpass_refusals:ratio5m{job="$job"}'}),
        ],
        "Latency": [
            View(
                "All servers",
                SECONDS,
                {
                    "{{method}} {{model}} p50": 'job:lowpass_request_duration_seconds:p50_5m{job="$job"}',
                    "{{method}} {{model}} p99": 'job:lowpass_request_duration_seconds:p99_5m{job="$job"}',
                },
            ),
            View(
                "Each server",
                SECONDS,
                {
                    "{{instance}} {{method}} p50": f"{EACH_SERVER}:p50_5m{{{SERVER}}}",
                    "{{instance}} {{method}} p99": f"{EACH_SERVER}:p99_5m{{{SERVER}}}",
                },
            ),
            View(
                "Recommend p99, with exemplars",
                SECONDS,
                {
                    "p99": "histogram_quantile(0.99, sum by (le) (rate(lowpass_request_duration_seconds_bucket"
                    f'{{{SERVER}, method="Recommend", code="OK"}}[$__rate_interval])))'
                },
                "The dots are traces, where --trace-endpoint is given and Prometheus keeps exemplars"
                " (--enable-feature=exemplar-storage).",
            ),
            View(
                "By stage, p99",
                SECONDS,
                {"{{model}} {{stage}}": 'job:lowpass_stage_duration_seconds:p99_5m{job="$job"}'},
                width=12,
            ),
            View(
                "Share over 50 ms",
                SHARE,
                {
                    "5 minutes": 'job:lowpass_slow:ratio5m{job="$job"}',
                    "30 minutes": 'job:lowpass_slow:ratio30m{job="$job"}',
                    "1 hour": 'job:lowpass_slow:ratio1h{job="$job"}',
                    "6 hours": 'job:lowpass_slow:ratio6h{job="$job"}',
                },
                width=12,
            ),
        ],
        "What it needs": [
            View("Memory", BYTES, {"{{instance}} {{worker}}": f"process_resident_memory_bytes{{{SERVER}}}"}),
            View(
                "Processor, cores",
                COUNT,
                {"{{instance}} {{worker}}": f"rate(process_cpu_seconds_total{{{SERVER}}}[$__rate_interval])"},
            ),
            View("In flight", COUNT, {"{{instance}} {{worker}}": f"lowpass_requests_in_flight{{{SERVER}}}"}),
            View("Workers up", COUNT, {"{{instance}} {{worker}}": f"lowpass_worker_up{{{SERVER}}}"}),
            View(
                "Workers started again, a day",
                COUNT,
                {
                    "{{instance}} {{reason}}": "sum by (instance, reason)"
                    f" (increase(lowpass_worker_restarts_total{{{SERVER}}}[1d]))"
                },
            ),
            View(
                "Log lines dropped, an hour",
                COUNT,
                {"{{instance}}": f"sum by (instance) (increase(lowpass_log_lines_dropped_total{{{SERVER}}}[1h]))"},
            ),
        ],
        "Engines, shards": [
            View(
                "Searches that an engine did not answer",
                RATE,
                {
                    "{{index}} {{reason}}": "sum by (index, reason)"
                    f" (rate(lowpass_index_errors_total{{{SERVER}}}[$__rate_interval]))"
                },
            ),
            View("Engines left alone", COUNT, {"{{instance}} {{index}}": f"lowpass_index_breaker_open{{{SERVER}}}"}),
            View(
                "Users of another shard",
                RATE,
                {"{{model}}": f"sum by (model) (rate(lowpass_wrong_shard_total{{{SERVER}}}[$__rate_interval]))"},
            ),
        ],
    },
)


MODELS = Page(
    "Models",
    "Which versions are served, where they came from, how good they are, and what they take.",
    [JOB, INSTANCE],
    {
        "Versions": [
            View(
                "Loaded",
                TIMES,
                {
                    "": "max by (model, version, bundle_id, backbone, method, teacher, index)"
                    f" (lowpass_bundle_info{{{SERVER}}})"
                },
                kind="table",
                width=24,
            ),
            View(
                "Requests, by version",
                RATE,
                {
                    "{{model}}:{{version}}": "sum by (model, version) (rate(lowpass_request_duration_seconds_count"
                    f'{{{SERVER}, model!=""}}[$__rate_interval]))'
                },
                "A canary shows its share here.",
            ),
            View(
                "Failed loads, an hour",
                COUNT,
                {"{{model}}": f"sum by (model) (increase(lowpass_model_load_failures_total{{{SERVER}}}[1h]))"},
            ),
            View(
                "Time to load",
                SECONDS,
                {"{{model}}:{{version}}": f"max by (model, version) (lowpass_bundle_load_seconds{{{SERVER}}})"},
            ),
        ],
        "Quality": [
            View(
                "Measured before serving",
                TIMES,
                {
                    "{{model}}:{{version}} {{metric}}": "max by (model, version, metric)"
                    f" (lowpass_model_quality{{{SERVER}}})"
                },
            ),
            View(
                "Kept share of the teacher, and the gate",
                SHARE,
                {
                    "{{model}}:{{version}}": "max by (model, version)"
                    f' (lowpass_model_quality{{{SERVER}, metric="kept_recall"}})',
                    "gate": "lowpass_kept_share:bound",
                },
            ),
            View(
                "What the index finds of the exact top",
                SHARE,
                {"{{model}}:{{version}}": f"min by (model, version) (lowpass_index_ann_recall{{{SERVER}}})"},
            ),
        ],
        "Answers": [
            View(
                "By how they came about",
                RATE,
                {
                    "{{model}} {{source}}": "sum by (model, source)"
                    f" (rate(lowpass_answers_total{{{SERVER}}}[$__rate_interval]))"
                },
            ),
            View(
                "Shadow requests",
                RATE,
                {
                    "{{model}} / {{shadow_model}} {{outcome}}": "sum by (model, shadow_model, outcome)"
                    f" (rate(lowpass_shadow_requests_total{{{SERVER}}}[$__rate_interval]))"
                },
                "shed: left out, because requests waited for a thread.",
            ),
            View(
                "Overlap with the shadow",
                SHARE,
                {"{{model}} / {{shadow_model}}": 'job:lowpass_shadow_overlap:mean5m{job="$job"}'},
            ),
        ],
        "Size": [
            View(
                "Users and items",
                COUNT,
                {
                    "{{model}}:{{version}} users": f"max by (model, version) (lowpass_users{{{SERVER}}})",
                    "{{model}}:{{version}} items": f"max by (model, version) (lowpass_items{{{SERVER}}})",
                },
            ),
            View(
                "All files",
                BYTES,
                {"{{model}}:{{version}}": f"max by (model, version) (lowpass_bundle_bytes{{{SERVER}}})"},
            ),
            View(
                "Index",
                BYTES,
                {"{{model}}:{{version}}": f"max by (model, version) (lowpass_index_bytes{{{SERVER}}})"},
            ),
        ],
    },
)


WHICH = 'job_name=~"$job_name"'
LAST = "max by (job_name) (lowpass_job_last"
JOBS = Page(
    "Jobs",
    "The batch jobs: when they last succeeded, what became of the last run, how long its steps took, and its gate.",
    [("job_name", "label_values(lowpass_job_last_run_timestamp_seconds, job_name)", True)],
    {
        "Last run": [
            View(
                "Since the last success",
                SECONDS,
                {"{{job_name}}": f"time() - {LAST}_success_timestamp_seconds{{{WHICH}}})"},
                kind="number",
            ),
            View(
                "Since the last run",
                SECONDS,
                {"{{job_name}}": f"time() - {LAST}_run_timestamp_seconds{{{WHICH}}})"},
                kind="number",
            ),
            View(
                "How it ended",
                TIMES,
                {"{{job_name}} {{outcome}}": f"max by (job_name, outcome) (lowpass_job_last_outcome{{{WHICH}}}) == 1"},
                "published, held by its gate, or failed.",
                kind="table",
            ),
        ],
        "Steps": [
            View(
                "Time of each step",
                SECONDS,
                {"{{job_name}} {{step}}": f"max by (job_name, step) (lowpass_job_step_duration_seconds{{{WHICH}}})"},
                width=24,
            ),
        ],
        "Gate": [
            View(
                "Passed",
                TIMES,
                {"{{job_name}} {{check}}": f"min by (job_name, check) (lowpass_job_gate_passed{{{WHICH}}})"},
                "1 for a check that let the student through.",
            ),
            View(
                "Measured",
                TIMES,
                {"{{job_name}} {{check}}": f"max by (job_name, check) (lowpass_job_gate_value{{{WHICH}}})"},
            ),
            View(
                "Bounds",
                TIMES,
                {"{{job_name}} {{check}}": f"max by (job_name, check) (lowpass_job_gate_bound{{{WHICH}}})"},
            ),
        ],
    },
)


PAGES = (GAINS, SERVING, MODELS, JOBS)


def main(words: Sequence[str]) -> int:
    """Write the dashboards, or look whether they are what this file makes; returns the exit code."""
    if set(words) - {"--check"}:
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    stale = []
    for page in PAGES:
        path, text = FOLDER / f"{page.name.lower()}.json", build(page)
        if "--check" not in words:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path))
    if stale:
        print(f"stale: {', '.join(stale)}; run python deploy/grafana/dashboards.py", file=sys.stderr)  # noqa: T201
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
