#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn histograms_count_into_the_right_buckets() {
    let histogram = Histogram::default();
    for us in [1, 100, 101, 819_200, 819_201, 10_000_000] {
        histogram.observe(Duration::from_micros(us));
    }
    let mut text = String::new();
    histogram.write(&mut text, "x_seconds", "X.");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "# HELP x_seconds X.",
            "# TYPE x_seconds histogram",
            "x_seconds_bucket{le=\"0.0001\"} 2",
            "x_seconds_bucket{le=\"0.0002\"} 3",
        ]
    );
    assert_eq!(
        lines[lines.len() - 4..],
        [
            "x_seconds_bucket{le=\"0.8192\"} 4",
            "x_seconds_bucket{le=\"+Inf\"} 6",
            "x_seconds_sum 11.638603",
            "x_seconds_count 6",
        ]
    );
}

#[test]
fn single_values_have_their_type() {
    let mut text = String::new();
    counter(&mut text, "a_total", "A.", 3);
    gauge(&mut text, "b", "B.", 0.5);
    let expected = "# HELP a_total A.\n# TYPE a_total counter\na_total 3\n\
                    # HELP b B.\n# TYPE b gauge\nb 0.5\n";
    assert_eq!(text, expected);
}
