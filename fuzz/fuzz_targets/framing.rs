//! The framer agrees with the reference parser (`tests/common/reading.rs`) on any bytes, however they are split.
#![no_main]

#[path = "../../tests/common/reading.rs"]
mod reading;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reading::agree(data));
