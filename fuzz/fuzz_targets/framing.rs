//! The door reads any bytes as the book does (`tests/common/reading.rs`), however they are cut.
#![no_main]

#[path = "../../tests/common/reading.rs"]
mod reading;

use libfuzzer_sys::fuzz_target;
use lockhouse::door::framing::Limits;

fuzz_target!(|data: &[u8]| {
    // The first byte says where to cut; small limits are met sooner.
    let Some((cut, bytes)) = data.split_first() else { return };
    let limits = Limits { head_bytes: 200, headers: 6, body_bytes: 40 };
    let whole = reading::by_the_door(&[bytes], &limits);
    let (left, right) = bytes.split_at(bytes.len() * usize::from(*cut) / 256);
    assert_eq!(whole, reading::by_the_door(&[left, right], &limits));
    assert_eq!(whole, reading::by_the_book(bytes, &limits));
});
