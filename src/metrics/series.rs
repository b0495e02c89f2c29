//! Series of counters and histograms by labels.

use std::hash::Hash;

use prometheus_client::metrics::{counter::Counter, family::Family, histogram::Histogram};

/// Label names and values of one series.
pub type Labels<const N: usize> = [(&'static str, &'static str); N];

pub(super) type Counters<const N: usize> = Series<Labels<N>, Counter>;
pub(super) type Histograms<const N: usize> = Series<Labels<N>, Histogram>;

/// Series of a metric. Expected series are created at the start: `rate()` misses the first event of a series that
/// appears with it. They are also preloaded, so that recording takes no lock on the family.
#[derive(Debug)]
pub(super) struct Series<L, M> {
    pub(super) family: Family<L, M>,
    preloaded: Box<[(L, M)]>,
}

impl<L: Clone + Eq + Hash, M: Clone> Series<L, M> {
    pub(super) fn new(family: Family<L, M>, expected: impl IntoIterator<Item = L>) -> Self {
        let preloaded = expected.into_iter().map(|labels| {
            let metric = family.get_or_create(&labels).clone();
            (labels, metric)
        });
        let preloaded = preloaded.collect();
        Self { family, preloaded }
    }

    /// Calls `f` with the metric of these labels.
    pub(super) fn with<R>(&self, labels: &L, f: impl FnOnce(&M) -> R) -> R {
        match self.preloaded.iter().find(|(known, _)| known == labels) {
            Some((_, metric)) => f(metric),
            None => f(&self.family.get_or_create(labels)),
        }
    }
}

impl<L: Clone + Eq + Hash> Series<L, Counter> {
    pub(super) fn increment(&self, labels: &L) {
        self.with(labels, Counter::inc);
    }
}

pub(super) fn counters(
    label: &'static str,
    expected: impl IntoIterator<Item = &'static str>,
) -> Counters<1> {
    Series::new(Family::default(), expected.into_iter().map(|value| [(label, value)]))
}
