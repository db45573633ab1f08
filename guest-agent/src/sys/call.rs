//! One system call.

use core::arch::asm;
use fence_wire_agent::Errno;

pub(super) const READ: usize = 0;
pub(super) const WRITE: usize = 1;
pub(super) const OPEN: usize = 2;
pub(super) const CLOSE: usize = 3;
pub(super) const RT_SIGPROCMASK: usize = 14;
pub(super) const IOCTL: usize = 16;
pub(super) const SOCKET: usize = 41;
pub(super) const CONNECT: usize = 42;
pub(super) const FCNTL: usize = 72;
pub(super) const GETDENTS64: usize = 217;
pub(super) const CLOCK_GETTIME: usize = 228;
pub(super) const EXIT_GROUP: usize = 231;
pub(super) const PPOLL: usize = 271;
pub(super) const GETRANDOM: usize = 318;
pub(super) const STATX: usize = 332;

/// Asks the kernel. Negative: the error's number.
///
/// # Safety
///
/// The arguments must be what this call takes: addresses of memory that is there for as long as the call lasts, of the
/// size and access that it needs.
#[inline]
pub(super) unsafe fn call3(number: usize, rdi: usize, rsi: usize, rdx: usize) -> isize {
    let result;
    // SAFETY: what the kernel does with the arguments is the caller's to know. It changes no registers but these.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") rdi,
            in("rsi") rsi,
            in("rdx") rdx,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack, preserves_flags),
        );
    }
    result
}

/// [`call3`], with two arguments more.
///
/// # Safety
///
/// As for [`call3`].
#[inline]
pub(super) unsafe fn call5(number: usize, rdi: usize, rsi: usize, rdx: usize, r10: usize, r8: usize) -> isize {
    let result;
    // SAFETY: as in `call3`.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") rdi,
            in("rsi") rsi,
            in("rdx") rdx,
            in("r10") r10,
            in("r8") r8,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack, preserves_flags),
        );
    }
    result
}

/// The result, or the error. None of these calls has a result that 31 bits do not hold.
pub(super) fn check(result: isize) -> Result<u32, Errno> {
    let result = result as i32;
    u32::try_from(result).map_err(|_| Errno(-result))
}
