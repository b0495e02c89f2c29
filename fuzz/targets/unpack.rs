//! Unpacks any bytes.
#![no_main]

use std::{panic, sync::Once};

static REPLACE_HOOK: Once = Once::new();

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // The hook of libfuzzer-sys aborts at each panic, but panics of decoders are caught. A panic that is not caught
    // aborts when it reaches the foreign caller of this function.
    REPLACE_HOOK.call_once(|| panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
    mcs_evaluator::fuzz_unpack::input(input);
});
