//! The program in every sandbox: it holds the pod's network until SIGTERM comes.
//!
//! It is assembled here, so that neither a registry nor a compiler nor any file of the host
//! is needed on the node. In C it would read
//!
//! ```c
//! sigset_t set = { SIGINT, SIGTERM };
//! sigprocmask(SIG_BLOCK, &set, NULL);
//! while (sigtimedwait(&set, NULL, NULL) < 0) {}
//! exit(0);
//! ```
//!
//! A blocked signal reaches even process 1 of a namespace through `sigtimedwait`, so no
//! handler is needed.

/// Where the kernel puts the file; also the alignment of its only segment.
const BASE: u64 = 0x40_0000;
/// File header (64) and one program header (56).
const HEADERS: u64 = 120;
/// Bits of SIGINT (2) and SIGTERM (15): signal n is bit n - 1.
const SIGNALS: u64 = (1 << 1) | (1 << 14);

/// x86-64. System calls: rt_sigprocmask 14, rt_sigtimedwait 128, exit 60.
const CODE_X86_64: &[u8] = &[
    0xb8, 14, 0, 0, 0, // mov eax, 14
    0x31, 0xff, // xor edi, edi              ; SIG_BLOCK
    0x48, 0x8d, 0x35, 41, 0, 0, 0, // lea rsi, [rip + 41]       ; the signals
    0x31, 0xd2, // xor edx, edx
    0x41, 0xba, 8, 0, 0, 0, // mov r10d, 8               ; size of the set
    0x0f, 0x05, // syscall
    0xb8, 128, 0, 0, 0, // wait: mov eax, 128
    0x48, 0x8d, 0x3d, 19, 0, 0, 0, // lea rdi, [rip + 19]       ; the signals
    0x31, 0xf6, // xor esi, esi
    0x31, 0xd2, // xor edx, edx              ; no timeout
    0x0f, 0x05, // syscall
    0x85, 0xc0, // test eax, eax
    0x78, 0xea, // js wait
    0xb8, 60, 0, 0, 0, // mov eax, 60
    0x31, 0xff, // xor edi, edi
    0x0f, 0x05, // syscall
];

/// AArch64. System calls: rt_sigprocmask 135, rt_sigtimedwait 137, exit 93.
const CODE_AARCH64: &[u32] = &[
    0xd280_0000, // mov x0, #0                ; SIG_BLOCK
    0x1000_01e1, // adr x1, . + 60            ; the signals
    0xd280_0002, // mov x2, #0
    0xd280_0103, // mov x3, #8                ; size of the set
    0xd280_10e8, // mov x8, #135
    0xd400_0001, // svc #0
    0x1000_0140, // wait: adr x0, . + 40      ; the signals
    0xd280_0001, // mov x1, #0
    0xd280_0002, // mov x2, #0                ; no timeout
    0xd280_1128, // mov x8, #137
    0xd400_0001, // svc #0
    0xb7ff_ff60, // tbnz x0, #63, wait        ; negative: interrupted
    0xd280_0000, // mov x0, #0
    0xd280_0ba8, // mov x8, #93
    0xd400_0001, // svc #0
    0xd503_201f, // nop                       ; aligns the signals to 8 bytes
];

/// The program for one of Docker's architecture names; none when we have none for it.
#[must_use]
pub fn program(architecture: &str) -> Option<Vec<u8>> {
    let (machine, code) = match architecture {
        "amd64" | "x86_64" => (62, CODE_X86_64.to_vec()),
        "arm64" | "aarch64" => {
            (183, CODE_AARCH64.iter().flat_map(|word| word.to_le_bytes()).collect())
        }
        _ => return None,
    };
    Some(elf(machine, &code))
}

/// An executable file with one segment that holds headers, code and the set of signals.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let size = HEADERS + code.len() as u64 + 8;
    let mut file = Vec::new();
    file.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for half in [2, machine] {
        file.extend_from_slice(&half.to_le_bytes()); // type: executable; machine
    }
    file.extend_from_slice(&1u32.to_le_bytes()); // version
    for word in [BASE + HEADERS, 64, 0] {
        file.extend_from_slice(&word.to_le_bytes()); // entry, program headers, sections
    }
    file.extend_from_slice(&0u32.to_le_bytes()); // flags
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes()); // sizes and counts of the headers
    }
    for word in [1u32, 5] {
        file.extend_from_slice(&word.to_le_bytes()); // load; read and execute
    }
    for word in [0, BASE, BASE, size, size, 0x1_0000] {
        file.extend_from_slice(&word.to_le_bytes()); // offset, addresses, sizes, alignment
    }
    file.extend_from_slice(code);
    file.extend_from_slice(&SIGNALS.to_le_bytes());
    file
}

#[cfg(test)]
#[path = "pause_test.rs"]
mod tests;
