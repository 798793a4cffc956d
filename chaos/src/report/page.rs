//! The page: one file, no scripts, nothing loaded from elsewhere.

use std::fmt::Write as _;

use super::Report;
use crate::history::Nanos;
use crate::meter::Bucket;
use crate::verdicts::Outcome;

/// Width of the drawing, in its own units.
const WIDTH: f64 = 1_000.0;
/// Left margin for captions.
const LEFT: f64 = 90.0;

const STYLE: &str = "body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1080px;\
    padding:0 1rem;color:#1b1f24;background:#fff}h1{font-size:1.5rem}h2{font-size:1.1rem;\
    margin-top:2rem}table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem \
    .6rem;border-bottom:1px solid #e3e6ea;vertical-align:top}.kept{color:#11643a}.violated{color:\
    #b3141d;font-weight:700}.open{color:#8a5a00}pre{background:#f5f6f8;padding:.8rem;overflow:auto;\
    white-space:pre-wrap}svg{width:100%;height:auto}.muted{color:#69707a}\
    @media(prefers-color-scheme:dark){body{background:#14171b;color:#dde1e6}td,th{border-color:\
    #2c323a}pre{background:#1d2126}svg text{fill:#dde1e6}.kept{color:#5fca8f}.violated{color:\
    #ff7a80}.open{color:#e5b567}}";

/// Text that may stand between tags.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let verdict = if report.failed() {
        "<span class=violated>a promise was broken</span>"
    } else {
        "<span class=kept>every promise was kept</span>"
    };
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport \
         content='width=device-width'><title>Quorate chaos, seed {seed}</title><style>{STYLE}\
         </style><h1>Quorate chaos: {verdict}</h1><p>{summary}</p>",
        seed = report.seed,
        summary = escape(report.summary().lines().last().unwrap_or_default()),
    );
    if let Some(error) = &report.error {
        let _ = write!(html, "<h2>Not carried through</h2><pre>{}</pre>", escape(error));
    }
    let _ = write!(html, "<h2>Timeline</h2>{}", timeline(report));
    let _ = write!(html, "<h2>Promises</h2>{}", verdicts(report));
    let _ = write!(html, "<h2>Faults</h2>{}", faults(report));
    let _ = write!(html, "<h2>Again</h2>{}", again(report));
    html.push_str("</html>\n");
    html
}

/// Maps times to the drawing.
struct Scale {
    end: f64,
}

impl Scale {
    fn x(&self, at: Nanos) -> f64 {
        LEFT + (WIDTH - LEFT) * (at as f64 / self.end).clamp(0.0, 1.0)
    }
}

fn timeline(report: &Report) -> String {
    let last_fault = report.faults.iter().map(|fault| fault.until).max().unwrap_or(0);
    let buckets = Nanos::try_from(report.buckets.len()).unwrap_or(0) * report.bucket_ms * 1_000_000;
    let scale = Scale { end: last_fault.max(buckets).max(1) as f64 };
    let mut svg = String::from("<svg viewBox='0 0 1000 330' role=img aria-label='timeline'>");
    let throughput =
        |bucket: &Bucket| f64::from(bucket.answered) * 1_000.0 / report.bucket_ms.max(1) as f64;
    let latency = |bucket: &Bucket| bucket.slowest_us as f64 / 1_000.0;
    let errors = |bucket: &Bucket| f64::from(bucket.refused + bucket.unknown);
    for fault in &report.faults {
        let (from, until) = (scale.x(fault.from), scale.x(fault.until));
        let _ = write!(
            svg,
            "<rect x='{from:.1}' y='10' width='{:.1}' height='310' fill='#d04a4a' \
             fill-opacity='.13'><title>{}</title></rect>",
            (until - from).max(1.0),
            escape(&fault.title())
        );
    }
    chart(&mut svg, report, &scale, (20.0, "answers/s", "#2f6fb2", &throughput));
    chart(&mut svg, report, &scale, (110.0, "slowest, ms", "#7a4fb0", &latency));
    chart(&mut svg, report, &scale, (200.0, "errors", "#c43b3b", &errors));
    reigns(&mut svg, report, &scale);
    svg.push_str("</svg><p class=muted>Red: while a fault lasts. Hover for what it is.</p>");
    svg
}

type Line<'a> = (f64, &'a str, &'a str, &'a dyn Fn(&Bucket) -> f64);

fn chart(
    svg: &mut String,
    report: &Report,
    scale: &Scale,
    (top, caption, colour, value): Line<'_>,
) {
    const HEIGHT: f64 = 70.0;
    let most = report.buckets.iter().map(value).fold(1.0_f64, f64::max);
    let mut path = String::new();
    for (index, bucket) in report.buckets.iter().enumerate() {
        let at = Nanos::try_from(index).unwrap_or(0) * report.bucket_ms * 1_000_000;
        let y = top + HEIGHT - HEIGHT * value(bucket) / most;
        let _ = write!(path, "{}{:.1},{y:.1}", if index == 0 { "M" } else { "L" }, scale.x(at));
    }
    let _ = write!(
        svg,
        "<path d='{path}' fill='none' stroke='{colour}' stroke-width='1.2'/><text x='0' y='{}' \
         font-size='12'>{caption}</text><text x='0' y='{}' font-size='11'>max {most:.0}</text>",
        top + 30.0,
        top + 46.0
    );
}

fn reigns(svg: &mut String, report: &Report, scale: &Scale) {
    const COLOURS: [&str; 5] = ["#2f6fb2", "#2e8b57", "#b8860b", "#7a4fb0", "#4f6272"];
    let _ = write!(svg, "<text x='0' y='303' font-size='12'>leader</text>");
    for reign in &report.leaders {
        let number = report.masters.iter().position(|master| *master == reign.leader).unwrap_or(0);
        let (from, until) = (scale.x(reign.from), scale.x(reign.until));
        let _ = write!(
            svg,
            "<rect x='{from:.1}' y='290' width='{:.1}' height='18' fill='{}'><title>{} led term \
             {}</title></rect>",
            (until - from).max(2.0),
            COLOURS[number % COLOURS.len()],
            escape(&reign.leader),
            reign.term
        );
        if until - from > 40.0 {
            let _ = write!(
                svg,
                "<text x='{:.1}' y='303' font-size='10' style='fill:#fff'>{} t{}</text>",
                from + 3.0,
                escape(&reign.leader),
                reign.term
            );
        }
    }
}

fn verdicts(report: &Report) -> String {
    let mut html = String::from("<table><tr><th>Promise<th>Verdict<th>Extent</tr>");
    for verdict in &report.verdicts {
        let (class, word, texts): (_, _, &[String]) = match &verdict.outcome {
            Outcome::Kept => ("kept", "kept", &[]),
            Outcome::Violated(texts) => ("violated", "violated", texts),
            Outcome::NotDecided(texts) => ("open", "not decided", texts),
            Outcome::NotChecked => ("muted", "not checked", &[]),
        };
        let _ = write!(
            html,
            "<tr><td><b>{}</b><br><span class=muted>{}</span>",
            escape(&verdict.name),
            escape(&verdict.promise)
        );
        if !texts.is_empty() {
            let _ = write!(html, "<pre>{}</pre>", escape(&texts.join("\n")));
        }
        let _ = write!(html, "<td class={class}>{word}<td>{}</tr>", escape(&verdict.extent()));
    }
    html + "</table>"
}

fn faults(report: &Report) -> String {
    let mut html = String::from("<table><tr><th>At<th>For<th>Fault</tr>");
    for fault in &report.faults {
        let seconds = |nanos: Nanos| nanos as f64 / 1e9;
        let note = fault.skipped.as_ref().map(|why| format!(" (not possible: {why})"));
        let _ = write!(
            html,
            "<tr><td>{:.2} s<td>{:.2} s<td>{}{}</tr>",
            seconds(fault.from),
            seconds(fault.until.saturating_sub(fault.from)),
            escape(&fault.title()),
            escape(&note.unwrap_or_default())
        );
    }
    html + "</table>"
}

fn again(report: &Report) -> String {
    format!(
        "<p>The same faults with the same dice, on a new cluster (<code>plan.yaml</code> is beside \
         this page; what the machine does in between is not repeated):</p><pre>quorate chaos run \
         --plan plan.yaml --masters {} --nodes {}</pre><p>The same evidence, judged again:</p>\
         <pre>quorate chaos judge evidence.json</pre><p class=muted>Version {}.</p>",
        report.masters.len(),
        report.nodes.len(),
        escape(&report.version)
    )
}
