//! Creation of counters and histograms.

use prometheus_client::metrics::{counter::Counter, family::Family, histogram::Histogram};

/// Label names and values of one series.
pub type Labels<const N: usize> = [(&'static str, &'static str); N];

pub(super) type Counters<const N: usize> = Family<Labels<N>, Counter>;

/// Upper bounds of histogram buckets in seconds: from a response out of memory to the longest default time limit.
const DURATION_BUCKETS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Creates a histogram of durations in seconds.
pub(super) fn seconds() -> Histogram {
    Histogram::new(DURATION_BUCKETS)
}

/// Creates counters with one label.
pub(super) fn counters(
    label: &'static str,
    expected: impl IntoIterator<Item = &'static str>,
) -> Counters<1> {
    with_series(Family::default(), expected.into_iter().map(|value| [(label, value)]))
}

/// Creates the expected series at the start: `rate()` misses the first event of a series that appears with it.
pub(super) fn with_series<const N: usize, M: Clone>(
    family: Family<Labels<N>, M>,
    expected: impl IntoIterator<Item = Labels<N>>,
) -> Family<Labels<N>, M> {
    for labels in expected {
        drop(family.get_or_create(&labels));
    }
    family
}
