//! A bar chart, as SVG.

use std::fmt::Write as _;

const ROW: usize = 22;
const LABELS: usize = 460;
const WIDTH: usize = 960;
/// The longest bar means this many times better.
const MOST: f64 = 8.0;

/// One bar per figure: how many times better than etcd. The line is at 1.
pub fn advantages(rows: &[(String, f64)]) -> String {
    let height = (rows.len() + 3) * ROW;
    let scale = (WIDTH - LABELS - 60) as f64 / MOST;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"20\" font-weight=\"bold\">Quorate against etcd: times better \
         (right of the line: Quorate)</text>\n"
    );
    for (number, (name, advantage)) in rows.iter().enumerate() {
        let y = (number + 2) * ROW;
        let length = advantage.clamp(0.0, MOST) * scale;
        let colour = if *advantage >= 1.0 { "#2a7f62" } else { "#c0562f" };
        let end = LABELS as f64 + length + 6.0;
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LABELS}\" y=\"{}\" width=\"{length:.1}\" height=\"14\" fill=\"{colour}\"/>\
             <text x=\"{end:.1}\" y=\"{}\">{advantage:.2}</text>",
            LABELS - 8,
            y + 12,
            escape(name),
            y,
            y + 12,
        );
    }
    let one = LABELS as f64 + scale;
    let _ = writeln!(
        svg,
        "<line x1=\"{one:.1}\" y1=\"{ROW}\" x2=\"{one:.1}\" y2=\"{height}\" stroke=\"black\" \
         stroke-dasharray=\"4 3\"/>\n</svg>"
    );
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
