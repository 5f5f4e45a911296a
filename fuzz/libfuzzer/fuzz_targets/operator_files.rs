#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shopfloor_fuzz_targets::operator_files::run(data));
