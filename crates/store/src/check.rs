//! Check of a file that was not closed, in a thread of its own: reading all pages takes 0.25 s with a million records,
//! and the store is usable meanwhile, because each record has a seal.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::InterruptHandle;

use crate::{
    database::{is_damage, open_reader},
    queue::DamageReport,
    state::StoreState,
};

/// Ends a running check.
#[derive(Default)]
pub(crate) struct CheckInterrupt(Mutex<Option<InterruptHandle>>);

impl CheckInterrupt {
    /// Ends the statement that is running. Has no effect between statements, so callers repeat the call.
    pub(crate) fn interrupt(&self) {
        if let Some(handle) = &*self.0.lock() {
            handle.interrupt();
        }
    }
}

/// Checks the structure of the file, and reports damage to the writer.
pub(crate) fn run(state: &Arc<StoreState>, interrupt: &CheckInterrupt) {
    let epoch_guard = state.epoch.lock();
    let epoch = *epoch_guard;
    let connection = open_reader(&state.path);
    drop(epoch_guard);
    let result = connection.and_then(|connection| {
        *interrupt.0.lock() = Some(connection.get_interrupt_handle());
        connection.query_one("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
    });
    let message = match result {
        Ok(result) if result == "ok" => return,
        Ok(damage) => damage,
        Err(error) if is_damage(&error) => error.to_string(),
        Err(error) => {
            tracing::warn!(error = %error, "the verdict store cannot be checked");
            return;
        }
    };
    state.queue.report_damage(DamageReport { epoch, message });
}
