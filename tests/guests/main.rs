//! Real guests: a Linux system in each, under QEMU and a libvirtd of the test's own, behind the real `fencewired`.

mod bed;
