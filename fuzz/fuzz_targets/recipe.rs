//! Fuzzes what reads this kind of file: `entries::recipe`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = phyla_fuzz::entries::recipe(bytes);
});
