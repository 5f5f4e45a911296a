#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shopfloor_fuzz_targets::spool::run(data));
