#![no_main]

#[path = "../states.rs"]
mod states;

libfuzzer_sys::fuzz_target!(|data: &[u8]| states::tls_state(data));
