use super::*;

#[test]
fn percentiles_are_values_that_were_measured() {
    let series = Series {
        system: "quorate".into(),
        how: How::Kill,
        what: "write".into(),
        millis: (1..=200).rev().map(f64::from).collect(),
    };
    assert_eq!(series.percentile(0.5), 100.0);
    assert_eq!(series.percentile(0.99), 198.0);
    assert_eq!(series.percentile(1.0), 200.0);
    let figures = Figures { series: vec![series], failed_writes: [("etcd".into(), 3)].into() };
    let table = figures.table();
    assert!(table.contains("SIGKILL  write"), "{table}");
    assert!(table.contains("etcd: 3 writes failed"), "{table}");
    let empty = Series { millis: Vec::new(), ..figures.series[0].clone() };
    assert!(empty.percentile(0.5).is_nan());
}
