//! Named places where a test can make an operation stop as if the process had died there, or let
//! the process really die; and defects that a whole master can be given, to prove that the chaos
//! harness finds them.

use std::sync::OnceLock;

#[cfg(test)]
use std::cell::RefCell;

#[cfg(test)]
thread_local! {
    static ARMED: RefCell<Option<&'static str>> = const { RefCell::new(None) };
}

/// The place at which a child process of a test dies, and at which visit: `NAME:VISIT`.
#[cfg(test)]
pub(crate) const DIE_AT: &str = "QUORATE_TEST_DIE_AT";

/// Fails when a test has armed `name` on this thread; does nothing otherwise.
#[cfg_attr(not(test), expect(clippy::unnecessary_wraps, reason = "only tests make it fail"))]
pub(crate) fn hit(name: &'static str) -> std::io::Result<()> {
    #[cfg(test)]
    if ARMED.with_borrow(|armed| *armed == Some(name)) {
        return Err(std::io::Error::other(format!("failpoint {name}")));
    }
    pass(name);
    Ok(())
}

/// The same where nothing can fail: only a child process dies here.
pub(crate) fn pass(name: &'static str) {
    #[cfg(test)]
    die(name);
    let _ = name;
}

#[cfg(test)]
fn die(name: &str) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static VISITS: AtomicU64 = AtomicU64::new(0);
    let Ok(at) = std::env::var(DIE_AT) else { return };
    let Some((place, visit)) = at.split_once(':') else { return };
    if place == name && VISITS.fetch_add(1, Ordering::Relaxed).to_string() == visit {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::SIGKILL);
        loop {
            std::thread::park();
        }
    }
}

/// Arms (or disarms) a failpoint on this thread.
#[cfg(test)]
pub(crate) fn arm(name: Option<&'static str>) {
    ARMED.set(name);
}

/// Names the one defect that this process has. Only debug builds look at it.
const VARIABLE: &str = "QUORATE_DEFECT";

/// A defect that breaks a promise on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Writes of the log are not synced: a power cut loses what was acknowledged.
    SkipSync,
    /// Writes are acknowledged some time before they are on disk.
    EarlyAcknowledgement,
    /// What leader work has decided takes effect in later terms too.
    IgnoreFence,
}

impl Defect {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "skip-sync" => Some(Self::SkipSync),
            "early-acknowledgement" => Some(Self::EarlyAcknowledgement),
            "ignore-fence" => Some(Self::IgnoreFence),
            _ => None,
        }
    }

    /// Does this process have the defect?
    pub(crate) fn is_present(self) -> bool {
        static PRESENT: OnceLock<Option<Defect>> = OnceLock::new();
        cfg!(debug_assertions) && *PRESENT.get_or_init(from_environment) == Some(self)
    }
}

fn from_environment() -> Option<Defect> {
    let name = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty())?;
    let defect = Defect::parse(&name);
    match defect {
        Some(defect) => tracing::error!(?defect, "THIS MASTER IS BROKEN ON PURPOSE: {VARIABLE}"),
        None => tracing::error!(name, "{VARIABLE} names no defect that is known"),
    }
    defect
}
