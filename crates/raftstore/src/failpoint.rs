//! Named places where a test can make an operation stop as if the process had died there, and
//! defects that a whole master can be given, to prove that the chaos harness finds them.

use std::sync::OnceLock;

#[cfg(test)]
use std::cell::RefCell;

#[cfg(test)]
thread_local! {
    static ARMED: RefCell<Option<&'static str>> = const { RefCell::new(None) };
}

/// Fails when a test has armed `name` on this thread; does nothing otherwise.
#[cfg_attr(not(test), expect(clippy::unnecessary_wraps, reason = "only tests make it fail"))]
pub(crate) fn hit(name: &'static str) -> std::io::Result<()> {
    #[cfg(test)]
    if ARMED.with_borrow(|armed| *armed == Some(name)) {
        return Err(std::io::Error::other(format!("failpoint {name}")));
    }
    let _ = name;
    Ok(())
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
