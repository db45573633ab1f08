//! The program: the library's decisions on top of the kernel's calls. Static, without libc, heap or unwinding; it links
//! only where no panic is possible.
//!
//! All that is unsafe is in [`sys`].
#![no_std]
#![no_main]
#![deny(unsafe_code)]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("fence_wire makes Linux system calls by hand and knows those of x86-64 only");

#[allow(unsafe_code, reason = "the only module that speaks to the kernel")]
mod sys;
