//! The door reads any bytes as the book does (`tests/common/reading.rs`), however they are cut.
#![no_main]

#[path = "../../tests/common/reading.rs"]
mod reading;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reading::agree(data));
