#![no_main]

libfuzzer_sys::fuzz_target!(init: gemmad_fuzz::leave_panics_to_rust(), |bytes: &[u8]| {
    gemmad_fuzz::run("wake", bytes);
});
