//! A guest's XML, and what runs in it: at most one boot sector, unless it is given a system. A BIOS that finds nothing to
//! boot sits there and uses no processor, which is all that a guest has to do to be fenced.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::guest_channel::REQUEST_LENGTH;
use crate::libvirt_file::{escaped, uuid_of};
use crate::process::program;

/// A guest of a [`Host`](super::Host): a PC with 32 MiB, no disk and no network, running nothing, until told otherwise.
#[derive(Debug, Clone)]
pub struct Machine {
    name: String,
    program: Program,
    system: Option<System>,
    devices: String,
}

/// What a guest with a system boots, and where what it writes to its console goes.
#[derive(Debug, Clone)]
struct System {
    kernel: PathBuf,
    initramfs: PathBuf,
    console: PathBuf,
}

/// What the kernel is told: to be quiet and quick where there is no real clock and nobody to attack it; and to start
/// again when it has panicked.
const COMMAND_LINE: &str =
    "console=ttyS0 panic=-1 quiet no_timer_check tsc=reliable mitigations=off audit=0 cryptomgr.notests";

/// What a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The BIOS, which finds nothing to boot.
    Nothing,
    /// Tells its panic device that its system has crashed; libvirt leaves it there, "crashed (panicked)".
    Panics,
    /// Writes to each of 32 MiB once: a migration at 1 MiB/s takes half a minute, and none at full speed.
    FillsMemory,
    /// Writes this to its first serial port, and again every second.
    Asks([u8; REQUEST_LENGTH]),
}

impl Machine {
    /// A guest of that name, whose UUID is made from the name: the same name has the same UUID everywhere.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), program: Program::Nothing, system: None, devices: String::new() }
    }

    /// Gives it something to run.
    #[must_use]
    pub fn runs(mut self, program: Program) -> Self {
        self.program = program;
        self
    }

    /// Gives it a kernel to boot, 128 MiB to do so, and a first serial port, its console, that is written to a file.
    #[must_use]
    pub fn system(mut self, kernel: &Path, initramfs: &Path, console: &Path) -> Self {
        let [kernel, initramfs, console] = [kernel, initramfs, console].map(Path::to_owned);
        self.system = Some(System { kernel, initramfs, console });
        self
    }

    /// Gives it a serial port, its `/dev/ttyS0`, on the unix socket `path`, on which QEMU listens.
    #[must_use]
    pub fn serial(self, path: &Path) -> Self {
        self.serial_port(0, path)
    }

    /// The same with another number, below four.
    #[must_use]
    pub fn serial_port(self, number: usize, path: &Path) -> Self {
        self.device("serial", path, &format!("<target port='{number}'/>"))
    }

    /// Gives it a virtio-serial port that it knows as `target`, on the unix socket `path`, on which QEMU listens.
    #[must_use]
    pub fn channel(self, target: &str, path: &Path) -> Self {
        let target = format!("<target type='virtio' name='{}'/>", escaped(target));
        self.device("channel", path, &target)
    }

    /// Gives it a virtio disk, whose content is that file's.
    ///
    /// # Panics
    /// When the path is not UTF-8.
    #[must_use]
    pub fn disk(mut self, path: &Path) -> Self {
        let path = escaped(path.to_str().expect("a test's paths are UTF-8"));
        writeln!(
            self.devices,
            "    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{path}'/>\
             <target dev='vda' bus='virtio'/></disk>"
        )
        .expect("a String takes everything");
        self
    }

    /// Gives it devices as libvirt's XML has them.
    #[must_use]
    pub fn devices(mut self, xml: &str) -> Self {
        writeln!(self.devices, "    {xml}").expect("a String takes everything");
        self
    }

    /// Gives it a virtio-serial port that it knows as `target`, on a unix socket for which libvirt chooses the path.
    #[must_use]
    pub fn channel_anywhere(mut self, target: &str) -> Self {
        let target = escaped(target);
        writeln!(self.devices, "    <channel type='unix'><target type='virtio' name='{target}'/></channel>")
            .expect("a String takes everything");
        self
    }

    fn device(mut self, kind: &str, path: &Path, target: &str) -> Self {
        let path = escaped(path.to_str().expect("a test's paths are UTF-8"));
        writeln!(self.devices, "    <{kind} type='unix'><source mode='bind' path='{path}'/>{target}</{kind}>")
            .expect("a String takes everything");
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The floppy that it boots from, if it runs anything.
    pub(super) fn sector(&self) -> Option<[u8; 512]> {
        self.program.sector()
    }

    /// Its XML; the floppy is at `floppy`.
    #[track_caller]
    pub(super) fn xml(&self, floppy: &Path) -> String {
        let Self { name, devices, .. } = self;
        let (name, uuid) = (escaped(name), uuid_of(name));
        let emulator = program("qemu-system-x86_64").display().to_string();
        if let Some(system) = &self.system {
            return system.xml(&name, &uuid, &emulator, devices);
        }
        let floppy = match self.sector() {
            None => String::new(),
            Some(_) => format!(
                "<disk type='file' device='floppy'><driver name='qemu' type='raw'/><source file='{}'/>\
                 <target dev='fda' bus='fdc'/><readonly/></disk>",
                escaped(floppy.to_str().expect("a test's paths are UTF-8")),
            ),
        };
        format!(
            "<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='fd'/></os>
  <on_crash>preserve</on_crash>
  <devices>
    <emulator>{emulator}</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <panic model='isa'/>
    {floppy}
{devices}  </devices>
</domain>
"
        )
    }
}

impl System {
    fn xml(&self, name: &str, uuid: &str, emulator: &str, devices: &str) -> String {
        let path = |path: &Path| escaped(path.to_str().expect("a test's paths are UTF-8"));
        let [kernel, initramfs, console] = [&self.kernel, &self.initramfs, &self.console].map(|it| path(it));
        // Not a microvm, which hangs now and then where it is emulated.
        format!(
            "<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel><initrd>{initramfs}</initrd><cmdline>{COMMAND_LINE}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <on_crash>preserve</on_crash>
  <devices>
    <emulator>{emulator}</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'><source path='{console}'/><target port='0'/></serial>
{devices}  </devices>
</domain>
"
        )
    }
}

impl Program {
    /// The boot sector, if there is one.
    fn sector(self) -> Option<[u8; 512]> {
        let mut sector = [0; 512];
        let code: &[u8] = match self {
            Program::Nothing => return None,
            Program::Panics => &[
                0xba, 0x05, 0x05, // mov dx, 0x505     the panic device
                0xb0, 0x01, //       mov al, 1
                0xee, //             out dx, al
                0xf4, //             hlt
                0xeb, 0xfd, //       jmp back
            ],
            // Real mode with one segment of 4 GiB.
            Program::FillsMemory => &[
                0xfa, //                                      cli
                0x31, 0xc0, //                                xor ax, ax
                0x8e, 0xd8, //                                mov ds, ax
                0x0f, 0x01, 0x16, 0x4a, 0x7c, //              lgdt [0x7c4a]
                0x0f, 0x20, 0xc0, //                          mov eax, cr0
                0x0c, 0x01, //                                or al, 1
                0x0f, 0x22, 0xc0, //                          mov cr0, eax
                0xbb, 0x08, 0x00, //                          mov bx, 8
                0x8e, 0xdb, //                                mov ds, bx
                0x24, 0xfe, //                                and al, 0xfe
                0x0f, 0x22, 0xc0, //                          mov cr0, eax
                0x66, 0xbf, 0x00, 0x00, 0x10, 0x00, //        mov edi, 1 MiB
                0x67, 0x66, 0x89, 0x3f, //                    mov [edi], edi
                0x66, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, //  add edi, 4096
                0x66, 0x81, 0xff, 0x00, 0x00, 0x00, 0x02, //  cmp edi, 32 MiB
                0x72, 0xec, //                                jb back
                0xfb, //                                      sti
                0xf4, //                                      hlt
                0xeb, 0xfd, //                                jmp back
                0, 0, 0, 0, 0, 0, 0, 0, //                    no segment
                0xff, 0xff, 0, 0, 0, 0x92, 0xcf, 0, //        all of memory, as data
                0x0f, 0x00, 0x3a, 0x7c, 0x00, 0x00, //        the table of these two
            ],
            Program::Asks(_) => &[
                0xfa, //              cli
                0x31, 0xc0, //        xor ax, ax
                0x8e, 0xd8, //        mov ds, ax
                0xba, 0xf9, 0x03, //  mov dx, 0x3f9      no interrupts from the UART
                0x30, 0xc0, //        xor al, al
                0xee, //              out dx, al
                0xba, 0xfb, 0x03, //  mov dx, 0x3fb      115200 baud
                0xb0, 0x80, //        mov al, 0x80
                0xee, //              out dx, al
                0xba, 0xf8, 0x03, //  mov dx, 0x3f8
                0xb0, 0x01, //        mov al, 1
                0xee, //              out dx, al
                0x42, //              inc dx
                0x30, 0xc0, //        xor al, al
                0xee, //              out dx, al
                0xba, 0xfb, 0x03, //  mov dx, 0x3fb      8N1
                0xb0, 0x03, //        mov al, 3
                0xee, //              out dx, al
                0x42, //              inc dx             DTR and RTS
                0xb0, 0x03, //        mov al, 3
                0xee, //              out dx, al
                0xfb, //              sti
                0xbe, 0x43, 0x7c, //  mov si, 0x7c43     again: what is behind this program
                0xb9, 0x4a, 0x00, //  mov cx, 74
                0xba, 0xfd, 0x03, //  mov dx, 0x3fd      next: wait until the UART takes a byte
                0xec, //              in al, dx
                0xa8, 0x20, //        test al, 0x20
                0x74, 0xfb, //        jz back
                0xba, 0xf8, 0x03, //  mov dx, 0x3f8
                0xac, //              lodsb
                0xee, //              out dx, al
                0xe2, 0xf1, //        loop next
                0xb9, 0x12, 0x00, //  mov cx, 18         a second of the BIOS's timer
                0xf4, //              hlt
                0xe2, 0xfd, //        loop back
                0xeb, 0xe3, //        jmp again
            ],
        };
        sector[..code.len()].copy_from_slice(code);
        if let Program::Asks(frame) = self {
            sector[code.len()..][..frame.len()].copy_from_slice(&frame);
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        Some(sector)
    }
}
