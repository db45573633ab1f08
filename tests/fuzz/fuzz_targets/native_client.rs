#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| fencewire_fuzz::native_client(input));
