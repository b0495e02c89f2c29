//! Guard that counts an object in a gauge while the guard exists.

use prometheus_client::metrics::gauge::Gauge;

/// Increments a gauge until dropped.
#[derive(Debug)]
#[must_use]
pub struct GaugeGuard<'metrics>(&'metrics Gauge);

impl<'metrics> GaugeGuard<'metrics> {
    pub(super) fn new(gauge: &'metrics Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
