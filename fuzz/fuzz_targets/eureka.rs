#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| diolkos_fuzz::eureka(bytes));
