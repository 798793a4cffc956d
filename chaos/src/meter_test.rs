use super::*;

#[test]
fn calls_are_counted_where_they_end() {
    let meter = Meter::default();
    meter.count(0, 50_000_000, Kind::Answered);
    meter.count(90_000_000, 250_000_000, Kind::Answered);
    meter.count(0, 250_000_000, Kind::Refused);
    meter.count(0, 299_000_000, Kind::Unknown);
    let buckets = meter.buckets();
    assert_eq!(buckets.len(), 3);
    assert_eq!(
        buckets[0],
        Bucket { answered: 1, slowest_us: 50_000, total_us: 50_000, ..Bucket::default() }
    );
    assert_eq!((buckets[2].answered, buckets[2].refused, buckets[2].unknown), (1, 1, 1));
    assert_eq!(meter.totals().total_us, 210_000);
    assert_eq!(meter.totals().slowest_us, 160_000);
}

#[test]
fn a_long_run_is_shown_in_fewer_buckets_with_the_same_calls() {
    let buckets = vec![Bucket { answered: 2, slowest_us: 7, ..Bucket::default() }; 25];
    let (coarse, millis) = coarser(&buckets, 10);
    assert_eq!((coarse.len(), millis), (9, 300));
    assert_eq!(coarse.iter().map(|bucket| bucket.answered).sum::<u32>(), 50);
    assert_eq!(coarser(&buckets, 25), (buckets, BUCKET_MS));
}
