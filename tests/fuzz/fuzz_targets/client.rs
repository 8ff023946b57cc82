//! Any text as a visitor's message: no panic.

#![no_main]

use anteroom::wire::socket::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = read(text);
    }
});
