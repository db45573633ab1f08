//! Where the kernel begins the program and where it ends, and the few symbols that the compiler expects of a C library.

use super::Linux;
use super::call::{EXIT_GROUP, call3};
use core::arch::{asm, naked_asm};
use core::panic::PanicInfo;

/// The kernel jumps here, with the arguments on the stack and no return address.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {begin}", "ud2", begin = sym begin)
}

/// `stack`: the number of arguments, their addresses, 0; the environment's, 0; pairs of what the kernel tells, 0.
unsafe extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: the kernel has put all that there, and nobody writes to it.
    let count = unsafe { *stack };
    // SAFETY: as above; the environment is behind the arguments' 0.
    let random = unsafe { random(stack.add(count + 2)) };
    let mut nth = 0;
    let mut next = || {
        nth += 1;
        // SAFETY: as above, with `nth` below `count`; each is the address of bytes that end with a NUL.
        (nth < count).then(|| unsafe { bytes(*stack.add(1 + nth) as *const u8) })
    };
    let system = Linux::new(random);
    let code = fence_wire_agent::run(&system, &mut next);
    system.drop_unsent();
    exit(code as usize)
}

/// The kernel gives each process 16 random bytes (`AT_RANDOM`): no call needed.
///
/// # Safety
///
/// `word` must point to the environment on the initial stack.
unsafe fn random(mut word: *const usize) -> u32 {
    const AT_NULL: usize = 0;
    const AT_RANDOM: usize = 25;
    // SAFETY: the environment ends with a 0, the pairs behind it with `AT_NULL`, and `AT_RANDOM` is an address of 16
    // bytes.
    unsafe {
        while *word != 0 {
            word = word.add(1);
        }
        word = word.add(1);
        loop {
            match *word {
                AT_NULL => return 0,
                AT_RANDOM => return (*word.add(1) as *const u32).read_unaligned(),
                _ => word = word.add(2),
            }
        }
    }
}

/// # Safety
///
/// `text` must point to bytes that end with a NUL and stay as they are.
unsafe fn bytes(text: *const u8) -> &'static [u8] {
    let mut length = 0;
    // SAFETY: no byte after the NUL is read. Volatile, or the compiler makes a call of C's `strlen` of it.
    unsafe {
        while text.add(length).read_volatile() != 0 {
            length += 1;
        }
        core::slice::from_raw_parts(text, length)
    }
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: no memory is involved, and it does not return.
        let _ = unsafe { call3(EXIT_GROUP, code, 0, 0) };
    }
}

/// Calls what exists nowhere: if the optimiser leaves one way to get here, the program does not link.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn a_panic_path_survived() -> !;
    }
    // SAFETY: never run.
    unsafe { a_panic_path_survived() }
}

/// The precompiled core library names it; nothing unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise is C's: both are `count` bytes and do not overlap.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= count {
        // SAFETY: forwards, no byte is written before it is read.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: backwards, from the last byte, no byte is written before it is read; the direction is set back.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") count => _,
            inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _, options(nostack));
    }
    to
}

/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise is C's: it is `count` bytes.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") value.cast_unsigned() as u8,
            options(nostack, preserves_flags));
    }
    to
}

/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: the caller's promise is C's: both are `count` bytes.
        let (a, b) = unsafe { (*one.add(at), *other.add(at)) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    // SAFETY: the same promise.
    unsafe { memcmp(one, other, count) }
}
