//! Model tests of the concurrency primitives. The files under test are compiled here with a mutex whose every lock is a
//! scheduling point of `shuttle`, which then runs each model under many random interleavings. A lost wake-up causes a
//! deadlock; a second answer or a violated limit causes a failed assertion.
//!
//! Runs as a program of its own (`harness = false`), so that the files' unit tests are left out.
//! `MODEL_ITERATIONS` sets the number of interleavings for each model.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "this is a test"
)]

#[path = "../../src/single_flight.rs"]
#[expect(dead_code, unused_imports, reason = "its unit tests run in the service")]
mod single_flight;
mod sync;
#[path = "../../src/tenancy/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the service uses more of it")]
mod tenancy;

mod fair_queue;
mod fair_slots;
mod flights;

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use shuttle::rand::{Rng, thread_rng};

/// Interleavings for each model in an ordinary run: a hundredth of those of `./test long`.
const ITERATIONS: usize = 1000;

fn main() {
    let iterations = std::env::var("MODEL_ITERATIONS").ok().and_then(|text| text.parse().ok());
    let iterations = iterations.unwrap_or(ITERATIONS);
    let models: [(&str, fn()); 3] = [
        ("single_flight_answers_every_caller_once", flights::model),
        ("fair_slots_serve_every_caller_within_their_limits", fair_slots::model),
        ("fair_queue_delivers_every_job_once", fair_queue::model),
    ];
    for (name, model) in models {
        shuttle::check_random(model, iterations);
        println!("test {name} ... ok ({iterations} interleavings)");
    }
    println!("{} passed, 0 failed", models.len());
}

/// Polls a future at most `polls` times, then drops the future. Calls with increasing `polls` cancel the future at each
/// await point in turn.
async fn cancel_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    let cancelled = poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            // Polled again without a wake-up, so that the cancellation does not depend on one.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    cancelled.await
}

/// Lets other tasks run up to `most` times.
async fn yield_some(most: usize) {
    for _ in 0..thread_rng().gen_range(0..=most) {
        shuttle::future::yield_now().await;
    }
}

/// Counts what is held at one time, and asserts a maximum.
#[derive(Clone)]
struct Gauge {
    held: Arc<AtomicUsize>,
    limit: usize,
}

impl Gauge {
    fn new(limit: usize) -> Self {
        Self { held: Arc::default(), limit }
    }

    fn enter(&self) -> Held {
        let held = self.held.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(held <= self.limit, "{held} at one time, the limit is {}", self.limit);
        Held(self.clone())
    }
}

/// One that is held, until this is dropped.
struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::SeqCst);
    }
}
